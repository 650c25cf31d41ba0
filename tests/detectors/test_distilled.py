"""GFL with a teacher: in inference it is GFL; the teacher is no part of it."""

import copy
import pickle

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.utils.events import EventStorage
from torch import nn

from gfocal import model_zoo
from gfocal.config import add_gfocal_config
from gfocal.detectors import GFL, DistilledGFL
from gfocal.engine import EMATeacher, FrozenTeacher
from gfocal.inspect.complexity import count_flops, count_parameters
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.distillation import FeatureImitation, LocalizationDistillation
from gfocal.modeling.representations import GeneralDistribution
from tests.helpers.detectors import losses_of
from tests.helpers.tiny import TinyBackbone, make_gfl, make_head, make_input
from tests.helpers.tiny_distilled import InMemory, make_criterion, make_distilled, make_teacher

pytestmark = pytest.mark.usefixtures("one_thread")

LOSSES = {"loss_ld", "loss_ld_vlr", "loss_kd", "loss_imitation"}


def batch():
    return [
        make_input(64, 96, [[4, 4, 60, 56], [30, 20, 90, 60]], [0, 2]),
        make_input(48, 90),
        make_input(64, 80, [[10, 0, 70, 50]], [1]),
    ]


def twins(**kwargs):
    """A student, and a GFL with its weights."""
    student, plain = (
        make_distilled(test_score_thresh=0.0, **kwargs),
        make_gfl(test_score_thresh=0.0),
    )
    plain.load_state_dict(student.state_dict(), strict=True)
    return student, plain


def test_in_inference_it_is_gfl():
    student, plain = twins()
    assert isinstance(student, GFL)
    student.load_state_dict(plain.state_dict(), strict=True)  # the other way round
    assert list(student.state_dict()) == list(plain.state_dict())
    inputs = batch()
    for one, other in zip(student.eval()(inputs), plain.eval()(inputs)):
        assert len(one["instances"]) > 0
        for name, value in one["instances"].get_fields().items():
            other_value = other["instances"].get(name)
            for a, b in zip(*(getattr(x, "tensor", x) for x in (value, other_value))):
                assert torch.equal(a, b)
    assert student.teacher.calls == 0
    images = student.preprocess_image(inputs).tensor
    for name, value in student.raw(images).items():
        assert torch.equal(value, plain.raw(images)[name])


def test_the_same_parameters_and_flops():
    student, plain = twins()
    assert count_flops(student, (64, 96)) == count_flops(plain, (64, 96))
    assert count_parameters(student) == count_parameters(plain)


def test_gfls_own_losses_stay_and_the_teacher_adds_its_own():
    student, plain = twins()
    inputs = batch()
    losses, own = losses_of(student, inputs), losses_of(plain, inputs)
    assert losses.keys() - own.keys() == LOSSES
    for name in own:
        assert torch.equal(losses[name], own[name])
    for name in LOSSES:
        assert 1e-4 < losses[name].item() < 1000, name
    assert student.teacher.calls == 1


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    student = make_distilled()
    student.teacher = InMemory(copy.deepcopy(student))
    losses = losses_of(student, batch())
    for name in LOSSES:
        assert losses[name].item() == pytest.approx(0, abs=1e-5), name


def test_the_teacher_is_no_part_of_it():
    student, plain = twins()
    teacher = student.teacher.model
    before = copy.deepcopy(teacher.state_dict())
    modules = {id(x) for x in teacher.modules()}
    assert not modules & {id(x) for x in student.modules()}
    assert {k for k, _ in student.named_parameters()} == {k for k, _ in plain.named_parameters()}
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    sum(losses_of(student, batch()).values()).backward()
    optimizer.step()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[k], x) for k, x in teacher.state_dict().items())
    assert not teacher.training  # though the student was set to training
    copied = copy.deepcopy(student)  # as for a validation loss
    assert copied.teacher is student.teacher
    with EventStorage():
        assert copied.train()(batch()).keys() >= LOSSES


@pytest.mark.parametrize("teacher", [FrozenTeacher("x.pth", "y.py"), EMATeacher(3)])
def test_copies_share_a_teacher_and_pickles_leave_it_out(teacher):
    student = make_distilled(teacher=teacher)
    loaded = make_teacher()
    for name in ("_model", "_average"):
        if hasattr(teacher, name):
            setattr(teacher, name, loaded)
    assert copy.deepcopy(student).teacher is teacher
    again = pickle.loads(pickle.dumps(teacher))
    assert repr(again) == repr(teacher) and "x.pth" in repr(again) + "x.pth"
    assert all(getattr(again, name, None) is None for name in ("_model", "_average"))
    assert len(pickle.dumps(teacher)) < 1000


def test_a_training_needs_a_teacher():
    student = make_distilled(teacher=None)
    student.eval()(batch())
    for train in (lambda: losses_of(student, batch()), lambda: student.prepare_training(None)):
        with pytest.raises(ValueError, match="has no teacher; a training needs one"):
            train()
    with pytest.raises(TypeError, match="criterion is a GFLCriterion, which learns from no"):
        criterion = make_criterion()
        make_distilled(
            criterion=GFLCriterion(cls_loss=criterion.cls_loss, box_loss=criterion.box_loss)
        )


def test_a_module_is_no_teacher():
    """The student would train and save it."""
    with pytest.raises(TypeError, match="teacher is a GFL, a module.*expected a FrozenTeacher"):
        make_distilled(teacher=make_teacher())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"pixel_mean": [0.0, 0, 0]}, r"pixel_mean is \[0.0, 0.0, 0.0\], the student's \[123"),
        ({"pixel_std": [1.0, 1, 1]}, r"pixel_std is \[1.0, 1.0, 1.0\], the student's \[58"),
        ({"input_format": "RGB"}, "input_format is 'RGB'|input_format is RGB, the student's BGR"),
        ({"num_classes": 4}, "the teacher has 4 classes, the student 3"),
        (
            {"head": make_head(box_representation=GeneralDistribution(reg_max=8))},
            r"the teacher has the bins \[0.0, 1.0.*8.0\], the student \[0.0.*16.0\]",
        ),
        (
            {"head": make_head(box_representation=GeneralDistribution(bin_width=0.5))},
            r"the teacher has the bins \[0.0, 0.5.*the student \[0.0, 1.0",
        ),
        (
            {
                "anchor_generator": DefaultAnchorGenerator(
                    sizes=[[64], [128]], aspect_ratios=[1.0], strides=[8, 16], offset=0.5
                )
            },
            r"place of a location in its cell is \[4.0, 4.0\], the student's \[0.0, 0.0\]",
        ),
    ],
)
def test_a_teacher_that_does_not_fit(change, match):
    student = make_distilled()
    with pytest.raises(ValueError, match=match):
        student.check_teacher(make_gfl(**change))


def test_more_teachers_that_do_not_fit():
    student = make_distilled()
    with pytest.raises(TypeError, match="the teacher is a Linear; expected a GFL"):
        student.check_teacher(nn.Linear(1, 1))
    wide = make_gfl()
    wide.backbone = TinyBackbone(channels=16)
    with pytest.raises(ValueError, match=r"maps have \[16, 16\] channels, the student's \[8, 8\]"):
        student.check_teacher(wide)
    coarse = make_gfl()
    coarse.strides = [8, 32]
    with pytest.raises(ValueError, match=r"strides is \[8, 32\], the student's \[8, 16\]"):
        student.check_teacher(coarse)
    # Only what a term compares has to agree.
    student.criterion = make_criterion(
        ld_loss=None, ld_vlr_loss=None, kd_loss=None, imitation_loss=FeatureImitation()
    )
    student.check_teacher(make_gfl(num_classes=4))
    student.criterion = make_criterion(
        ld_loss=LocalizationDistillation(), ld_vlr_loss=None, kd_loss=None, imitation_loss=None
    )
    student.check_teacher(wide)


def test_half_precision_is_the_teachers_too():
    student = make_distilled()
    teacher = student.teacher.model.float()
    seen = []
    teacher.head.box_tower.register_forward_hook(
        lambda module, inputs, outputs: seen.append(outputs.dtype)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(student, batch())
    assert set(seen) == {torch.bfloat16} and len(seen) == 2  # levels
    assert all(x.dtype == torch.float32 and x.isfinite() for x in losses.values())
    sum(losses.values()).backward()


def test_images_without_boxes():
    student = make_distilled()
    losses = losses_of(student, [make_input(64, 96), make_input(64, 96)])
    assert [losses[name].item() for name in sorted(LOSSES)] == [0] * 4
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in student.parameters())


def yacs(**keys):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file("COCO-Detection/gflv2_R_50_FPN_1x.yaml"))
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = "DistilledGFL", "meta"
    for name, value in keys.items():
        cfg.MODEL.DISTILLATION[name] = value
    return cfg


def test_in_yacs():
    keys = {"WEIGHTS": "teacher.pth", "CONFIG": "teacher.py", "KD_WEIGHT": 0.0, "NORMALISED": True}
    model = build_model(yacs(**keys, LD_WEIGHT=3.0, IMITATION_WEIGHT=2.0))
    assert isinstance(model, DistilledGFL)
    assert repr(model.teacher) == "FrozenTeacher(weights='teacher.pth', config='teacher.py')"
    lessons = model.criterion.lessons
    assert list(lessons) == ["loss_ld", "loss_ld_vlr", "loss_imitation"]
    assert [x.weight for x in lessons.values()] == [3.0, 0.25, 2.0]
    assert all(x.normalised for x in lessons.values())
    assert isinstance(build_model(yacs(TEACHER="ema")).teacher, EMATeacher)
    with pytest.raises(ValueError, match="TEACHER is 'none'; expected one of 'frozen', 'ema'"):
        build_model(yacs(TEACHER="none"))
    with pytest.raises(ValueError, match="WEIGHTS is 'x' .* nothing reads them"):
        build_model(yacs(TEACHER="ema", WEIGHTS="x"))
