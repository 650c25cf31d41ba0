"""Teachers in a training: from a file, or the student's own average. They leave no trace."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from torch.optim.swa_utils import AveragedModel

from gfocal import model_zoo
from gfocal.config import add_gfocal_config
from gfocal.engine import EMATeacher, FrozenTeacher, LazyTrainer, Predictor, load_config
from gfocal.engine.ema import EMAHook
from gfocal.weights import StrictCheckpointer, describe
from tests.helpers.resume_config import noisy_gfl, noisy_student
from tests.helpers.tiny import make_gfl, make_input
from tests.helpers.tiny_distilled import make_distilled, make_teacher
from tests.helpers.trainings import ROOT, environment, results
from tests.scenarios.test_resume import CONFIG, differences, load, overrides, train

pytestmark = pytest.mark.usefixtures("one_thread")

LD = ("loss_ld", "loss_ld_vlr", "loss_kd", "loss_imitation")
SHORT = ["train.max_iter=6", "train.checkpointer.period=2", "train.eval_period=6",
         "dataloader.train.num_workers=0"]  # fmt: skip


@pytest.fixture
def weights(tmp_path):
    """Of a trained tiny GFL, or one that looks so."""
    teacher = noisy_gfl(3)
    teacher.backbone.norm.running_mean += torch.tensor([1.0, -1, 2])
    for layer in (teacher.head.cls_logits, teacher.head.box_logits):
        layer.weight.data *= 30
    path = tmp_path / "teacher.pth"
    torch.save({"model": teacher.state_dict()}, path)
    return str(path)


def frozen(weights):
    return L(FrozenTeacher)(weights=weights, config=dict(model=L(noisy_gfl)(num_classes=3)))


def student(teacher):
    return L(noisy_student)(num_classes=3, teacher=teacher)


@pytest.mark.parametrize("kind", ["frozen", "ema"])
def test_a_resume_is_exact_to_the_bit(kind, tmp_path, weights):
    model = student(frozen(weights) if kind == "frozen" else L(EMATeacher)(start_iter=2))
    train(tmp_path, "whole", *SHORT, model=model)
    train(tmp_path, "half", *SHORT, model=model, stop_after=5)
    train(tmp_path, "half", *SHORT, "train.seed=77", model=model)
    expected = results(tmp_path / "whole")
    assert results(tmp_path / "half") == expected
    names = ("half/model_final.pth", "whole/model_final.pth")
    assert differences(*(load(tmp_path / x) for x in names)) == []
    for name in LD:
        values = [expected[i][name] for i in range(6)]
        assert values[-1] > 0
        if kind == "ema":
            assert values[:2] == [0, 0]
    assert expected[6]["validation/loss_ld"] > 0


def test_a_checkpoint_is_that_of_gfl(tmp_path, weights):
    trainer = train(tmp_path, "run", *SHORT, model=student(frozen(weights)))
    file = tmp_path / "run/model_final.pth"
    plain = noisy_gfl(3)
    assert load(file)["model"].keys() == plain.state_dict().keys()
    StrictCheckpointer(plain).load(str(file))
    groups = trainer.optimizer.param_groups
    assert sum(len(x["params"]) for x in groups) == len(list(plain.parameters()))
    teacher = trainer.model.teacher(trainer.model)
    assert not any(p.requires_grad for p in teacher.parameters()) and not teacher.training
    before = torch.load(weights)["model"]
    assert all(torch.equal(x, before[k]) for k, x in teacher.state_dict().items())


def test_weights_say_what_they_are_without_a_teacher(tmp_path):
    cfg = model_zoo.get_config("quick_start/shapes_distilled.py")
    assert cfg.model.teacher.config == "quick_start/shapes_teacher.py"
    model = LazyTrainer.build_model(cfg)
    path = tmp_path / "student.pth"
    torch.save({"model": model.state_dict(), "gfocal": describe(cfg, model=model).plain()}, path)
    predictor = Predictor(path, overrides=["model.test_score_thresh=0.0", "train.device=cpu"])
    assert predictor.model.teacher is None
    assert len(predictor(np.zeros((64, 64, 3), np.uint8))["instances"]) > 0


def test_a_teacher_that_is_not_there(tmp_path):
    """The training says so before its first step; an evaluation does not need it."""
    cfg = load_config(CONFIG, overrides(tmp_path, "run", *SHORT))
    cfg.model = student(frozen("nothing.pth"))
    with pytest.raises(
        FileNotFoundError, match=r"teacher: no weight file 'nothing.pth'.*teacher.w"
    ):
        LazyTrainer(cfg)
    torch.save({"model": noisy_gfl(3).state_dict()}, tmp_path / "student.pth")
    cfg.train.init_checkpoint = f"{tmp_path}/student.pth"
    assert "bbox" in LazyTrainer.evaluate(cfg)
    cfg.model = student(frozen(""))
    with pytest.raises(FileNotFoundError, match="teacher: no weight file is given"):
        LazyTrainer(cfg)
    cfg.model = student(L(FrozenTeacher)(weights=f"{tmp_path}/student.pth", config="gfl_R_5.py"))
    with pytest.raises(FileNotFoundError, match="teacher: no config file 'gfl_R_5.py'"):
        LazyTrainer(cfg)
    cfg.model = student(L(FrozenTeacher)(weights=f"{tmp_path}/student.pth"))
    with pytest.raises(ValueError, match="carries no config"):
        LazyTrainer(cfg)


@pytest.mark.parametrize("kd", [True, False])
def test_a_teacher_of_other_classes(kd, tmp_path, caplog):
    """As many, in another order: KD would mix them up."""
    model = make_distilled()
    if not kd:
        model.criterion.kd_loss = None
    described = {"format": 1, "class_names": ["disc", "square", "star"]}
    weights = tmp_path / "teacher.pth"
    torch.save({"model": make_teacher().state_dict(), "gfocal": described}, weights)
    model.teacher = FrozenTeacher(str(weights), {"model": L(make_gfl)(num_classes=3)})
    model.prepare_training(None, ["disc", "square", "star"])
    assert "class names" not in caplog.text
    model.prepare_training(None, ["square", "disc", "star"])
    said = "teacher.pth: the student has other class names than the weights (in brackets): "
    assert (said + "'square' ('disc'), 'disc' ('square')" in caplog.text) == kd


def test_an_average_that_is_not_there(tmp_path):
    cfg = load_config(CONFIG, overrides(tmp_path, "run", *SHORT, "train.ema_decay=0"))
    cfg.train.best_metric = ""
    cfg.model = student(L(EMATeacher)())
    with pytest.raises(ValueError, match=r"train.ema_decay \(SOLVER.EMA_DECAY\) is 0"):
        LazyTrainer(cfg)
    with pytest.raises(ValueError, match="no averaged weights; expected a training by gfocal's"):
        make_distilled(teacher=EMATeacher()).train()([make_input(64, 96, [[0, 0, 50, 50]])])
    with pytest.raises(ValueError, match="start_iter is -1"):
        EMATeacher(-1)


def test_the_average_teaches_in_eval_mode():
    model = noisy_student(3, EMATeacher(start_iter=1))
    hook = EMAHook(model, 0.5)
    hook.before_train()
    model.prepare_training(hook)
    assert hook.model.teacher is model.teacher
    inputs = [make_input(64, 96, [[0, 0, 50, 50]])]
    assert model.teacher(model) is None
    losses = model.train()(inputs)
    assert all(losses[name] == 0 for name in LD)
    hook.after_step()
    statistics = copy.deepcopy(hook.model.backbone.norm.state_dict())
    with torch.no_grad():
        model.head.box_logits.weight.normal_()
    losses = model.train()(inputs)
    assert losses["loss_ld"] > 0
    assert not hook.model.training and model.training
    now = hook.model.backbone.norm.state_dict()
    assert all(torch.equal(x, now[k]) for k, x in statistics.items())
    assert "_average" not in repr(model.state_dict().keys())
    assert not any(isinstance(x, AveragedModel) for x in model.modules())


def tiny_yacs():
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file("COCO-Detection/gflv2_R_50_FPN_1x.yaml"))
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.GFL.CONV_DIM, cfg.MODEL.GFL.NUM_CONVS = 32, 32, 1
    cfg.MODEL.DEVICE = "cpu"
    return cfg


class Accepting(torch.nn.Linear):
    """A student that takes any teacher."""

    def __init__(self):
        super().__init__(1, 1)
        self.seen = []

    def check_teacher(self, teacher):
        self.seen.append(teacher)


@pytest.mark.parametrize("kind", ["py", "dict", "yaml", "CfgNode", "weights", "zoo"])
def test_where_a_teacher_comes_from(kind, tmp_path):
    shapes = model_zoo.get_config("quick_start/shapes_gflv2.py")
    (tmp_path / "teacher.py").write_text(
        "from detectron2.config import LazyCall as L\n"
        "from tests.helpers.tiny import make_gfl\n"
        "model = L(make_gfl)(num_classes=3)\n"
    )
    (tmp_path / "teacher.yaml").write_text(tiny_yacs().dump())
    configs = {
        "py": str(tmp_path / "teacher.py"),
        "dict": {"model": L(make_gfl)(num_classes=3)},
        "yaml": str(tmp_path / "teacher.yaml"),
        "CfgNode": tiny_yacs(),
        "weights": None,
        "zoo": "quick_start/shapes_gflv2.py",
    }
    if kind in ("py", "dict"):
        model = make_gfl()
    elif kind in ("yaml", "CfgNode"):
        model = build_model(tiny_yacs())
    else:
        model = LazyTrainer.build_model(shapes)
    path = tmp_path / "teacher.pth"
    torch.save({"model": model.state_dict(), "gfocal": describe(shapes).plain()}, path)
    teacher, pupil = FrozenTeacher(str(path), configs[kind]), Accepting()
    random = torch.get_rng_state()
    found = teacher(pupil)
    assert torch.equal(torch.get_rng_state(), random)
    assert teacher(pupil) is found and pupil.seen == [found]  # checked once
    assert not found.training
    expected = model.state_dict()
    assert all(torch.equal(x, expected[k]) for k, x in found.state_dict().items())


def test_it_is_where_the_student_is(tmp_path):
    torch.save({"model": make_teacher().state_dict()}, tmp_path / "t.pth")
    teacher = FrozenTeacher(f"{tmp_path}/t.pth", {"model": L(make_gfl)(num_classes=3)})
    pupil = make_distilled(teacher=teacher).to(memory_format=torch.channels_last)
    kernel = teacher(pupil).head.cls_logits.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()
    assert teacher(pupil.to("meta")).pixel_mean.device.type == "meta"
    with pytest.raises(TypeError, match=r"the teacher's config is a GFL; expected .*dict\(model="):
        FrozenTeacher("x.pth", make_gfl())
    other = FrozenTeacher(f"{tmp_path}/t.pth", {"model": L(make_gfl)(num_classes=4)})
    with pytest.raises(ValueError, match="the file has 3 classes, num_classes is 4"):
        other(make_distilled())


TWO_PROCESSES = """
import sys, torch, torch.distributed as dist
from gfocal.engine.ema import EMAHook
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
hook = EMAHook(model, 0.5)
if sys.argv[3] == "same":
    hook.same_everywhere()
model(torch.full((4, 2), float(rank)) + torch.arange(8.0).view(4, 2))
hook.after_step()
mean = hook.model[0].running_mean.clone()
other = [torch.zeros(2) for _ in range(2)]
dist.all_gather(other, mean)
print(torch.equal(*other), mean.tolist())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["same", "other"])
def test_the_average_of_two_processes(kind, tmp_path):
    """A checkpoint has the statistics of the main process: with a teacher all have these."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(rank), str(tmp_path / "init"), kind],
            env=environment(), stdout=subprocess.PIPE, text=True, cwd=Path(ROOT),
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [x.communicate(timeout=120)[0].split(" ", 1) for x in processes]
    assert [x[0] for x in said] == [str(kind == "same")] * 2
    assert (said[0][1] == said[1][1]) == (kind == "same")
