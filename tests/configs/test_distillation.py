"""The configs of students: each builds, and so does its teacher, which fits."""

import copy

import pytest
from detectron2.config import instantiate

from gfocal import model_zoo
from gfocal.detectors import GFL, DistilledGFL

STUDENTS = [x for x in model_zoo.list_all_configs() if x.startswith("distillation/")]
STUDENTS.append("quick_start/shapes_distilled.py")


def test_the_list_is_complete():
    assert len(STUDENTS) == 5
    depths = [model_zoo.get_config(x).model.backbone.bottom_up.stages for x in STUDENTS[:4]]
    assert sorted(x.depth for x in depths) == [18, 34, 50, 50]


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_and_its_teacher(name):
    cfg = model_zoo.get_config(name)
    teacher = model_zoo.get_config(cfg.model.teacher.config)
    assert cfg.model.teacher.weights.startswith("./output/")
    for model in (cfg.model, teacher.model):
        stages = model.backbone.bottom_up.stages
        if "depth" in stages:  # of the weights' names and of the levels nothing depends on it
            stages.depth = 18
    student, its_teacher = instantiate(cfg.model), instantiate(teacher.model)
    assert type(student) is DistilledGFL and type(its_teacher) is GFL
    student.check_teacher(its_teacher)
    assert list(student.criterion.lessons) == ["loss_ld", "loss_ld_vlr", "loss_kd"]
    plain = copy.deepcopy(cfg.model)
    for key in ("teacher", "criterion"):
        plain.pop(key)
    plain._target_, plain.criterion = GFL, teacher.model.criterion
    assert instantiate(plain).state_dict().keys() == student.state_dict().keys()


def test_the_quick_start_pair():
    student, teacher = (
        model_zoo.get_config(f"quick_start/shapes_{x}.py") for x in ("distilled", "teacher")
    )
    alone = model_zoo.get_config("quick_start/shapes_gflv2.py")
    assert student.model.teacher.weights == f"{teacher.train.output_dir}/model_final.pth"
    for key in ("backbone", "head", "matcher", "num_classes"):
        assert student.model[key] == alone.model[key]
    assert teacher.model.head.conv_dims == [128] * 4
    networks = [sum(p.numel() for p in instantiate(x.model).parameters()) for x in (alone, teacher)]
    assert 2 < networks[1] / networks[0] < 3
    assert student.optimizer == alone.optimizer and student.train.max_iter == alone.train.max_iter
