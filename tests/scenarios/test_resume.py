"""A training that is stopped, at any moment and by any means, goes on as if nothing had been."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.engine import HookBase
from omegaconf import DictConfig

from gfocal.data.mapper import DetectionMapper
from gfocal.data.pipelines import PIPELINES
from gfocal.engine import LazyTrainer, load_config
from gfocal.engine.hooks import EvaluationHook
from gfocal.engine.saving import TrainingCheckpointer
from gfocal.solver import AdamW
from tests.helpers.detectors import each_of_ours
from tests.helpers.resume_config import detector
from tests.helpers.trainings import ROOT, TIMES, environment, lines, results

CONFIG = str(ROOT / "tests/helpers/resume_config.py")
pytestmark = pytest.mark.usefixtures("one_thread")


def overrides(tmp_path: Path, name: str, *more: str) -> list[str]:
    return [f"data.folder={tmp_path}/images", f"train.output_dir={tmp_path}/{name}", *more]


def start(tmp_path: Path, name: str, *more: str) -> subprocess.Popen:
    """The command line, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools/train_net.py"), "--config-file", CONFIG, "--resume",
         "--num-gpus", "0", *overrides(tmp_path, name, *more)],
        env=environment(), stdout=subprocess.DEVNULL, stderr=(tmp_path / "stderr").open("w"),
    )  # fmt: skip


def differences(a: object, b: object, where: str = "") -> list[str]:
    """Where two checkpoints are not the same to the bit."""
    if type(a) is not type(b):
        return [f"{where}: {type(a)} {type(b)}"]
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict):
        if other := (a.keys() ^ b.keys()) - TIMES:
            return [f"{where}: {other}"]
        return [d for k in a if k not in TIMES for d in differences(a[k], b[k], f"{where}.{k}")]
    if isinstance(a, (list, tuple)):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{where}[{i}]")]
    return [] if repr(a) == repr(b) else [f"{where}: {a} {b}"]  # repr: nan is nan


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.mark.slow
def test_five_kills_change_nothing(tmp_path):
    whole = start(tmp_path, "whole")
    assert whole.wait(timeout=300) == 0, (tmp_path / "stderr").read_text()

    moments = random.Random(0)
    folder = tmp_path / "killed"
    kills = 0
    while kills < 5:
        process = start(tmp_path, "killed")
        before, progress = len(lines(folder)), moments.randint(1, 12)
        while process.poll() is None and len(lines(folder)) < before + progress:
            time.sleep(0.001)
        time.sleep(moments.random() * 0.05)
        assert process.poll() is None, (tmp_path / "stderr").read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    last = start(tmp_path, "killed")
    assert last.wait(timeout=300) == 0, (tmp_path / "stderr").read_text()

    expected = results(tmp_path / "whole")
    assert results(folder) == expected
    losses = [x["total_loss"] for x in expected.values() if "total_loss" in x]
    assert len(losses) == 60
    assert len(set(losses)) > 20  # medians, which repeat with some versions of Detectron2
    assert len([x for x in expected.values() if "ema/bbox/score" in x]) == 5
    for name in ("model_final", "model_final_ema", "model_best"):
        one, other = (load(tmp_path / x / f"{name}.pth") for x in ("whole", "killed"))
        assert differences(one, other) == []
    assert len(list(folder.glob("model_00*.pth"))) == 2  # max_to_keep, also over resumes


def train(
    tmp_path: Path,
    name: str,
    *more: str,
    stop_after: int | None = None,
    mapper: DictConfig | None = None,
    model: DictConfig | None = None,
) -> LazyTrainer:
    """A training in this process; ``stop_after`` iterations it fails, as by a full disk."""
    cfg = load_config(CONFIG, overrides(tmp_path, name, *more))
    cfg.model = model or cfg.model
    if mapper is not None:
        cfg.dataloader.train.mapper = mapper
    trainer = LazyTrainer(cfg)
    trainer.resume_or_load(resume=True)
    if stop_after is not None:
        step = trainer.run_step

        def run_step():
            if trainer.iter == stop_after:
                raise OSError("stopped by the test")
            step()

        trainer.run_step = run_step
        with pytest.raises(OSError, match="stopped by the test"):
            trainer.train()
    else:
        trainer.train()
    return trainer


@pytest.mark.parametrize("option", ["train.amp.enabled=False", "train.amp.enabled=True",
                                    "+train.accumulate=3"])  # fmt: skip
def test_other_workers_and_other_random_states_change_nothing(tmp_path, option):
    common = ["train.max_iter=12", "train.checkpointer.period=3", "train.eval_period=6", option]
    train(tmp_path, "whole", *common, "dataloader.train.num_workers=0")
    train(tmp_path, "half", *common, "dataloader.train.num_workers=2", stop_after=8)
    # Another seed: the initial weights, the order of images and all else come from the checkpoint.
    train(tmp_path, "half", *common, "dataloader.train.num_workers=1", "train.seed=77")
    assert results(tmp_path / "half") == results(tmp_path / "whole")
    names = ("half/model_final.pth", "whole/model_final.pth")
    assert differences(*(load(tmp_path / name) for name in names)) == []


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_augmentations_that_see_the_boxes(tmp_path, pipeline):
    augmentations, _ = PIPELINES[pipeline]
    augmentations = augmentations(True, mean=[100.5, 90, 80], image_format="BGR", size=96)
    mapper = L(DetectionMapper)(is_train=True, augmentations=augmentations, image_format="BGR")
    common = ["train.max_iter=8", "train.checkpointer.period=3", "train.eval_period=0"]
    common += ["train.best_metric=", "train.validation_loss=False"]
    train(tmp_path, "whole", *common, "dataloader.train.num_workers=0", mapper=mapper)
    half = [*common, "dataloader.train.num_workers=2"]
    train(tmp_path, "half", *half, stop_after=5, mapper=mapper)
    train(tmp_path, "half", *half, "train.seed=77", mapper=mapper)
    losses = [x["total_loss"] for x in results(tmp_path / "whole").values() if "total_loss" in x]
    assert len(losses) == 8 and len(set(losses)) > 3  # medians, which may repeat
    assert results(tmp_path / "half") == results(tmp_path / "whole")
    names = ("half/model_final.pth", "whole/model_final.pth")
    assert differences(*(load(tmp_path / name) for name in names)) == []


@each_of_ours
def test_every_detector_goes_on_to_the_bit(name, tmp_path):
    common = ["train.max_iter=4", "train.checkpointer.period=2", "train.eval_period=4"]
    common += ["dataloader.train.num_workers=0"]
    model = L(detector)(name=name, num_classes=3)
    train(tmp_path, "whole", *common, model=model)
    train(tmp_path, "half", *common, model=model, stop_after=3)
    train(tmp_path, "half", *common, "train.seed=77", model=model)
    assert results(tmp_path / "half") == results(tmp_path / "whole")
    names = ("half/model_final.pth", "whole/model_final.pth")
    assert differences(*(load(tmp_path / x) for x in names)) == []


@pytest.mark.parametrize("killed_at", [5, 12])  # the first evaluation, and the last
def test_the_evaluation_that_a_kill_prevented_is_made_up_for(tmp_path, killed_at):
    common = ["train.max_iter=12", "train.checkpointer.period=3", "train.eval_period=6"]
    common += ["train.ema_decay=0.0", "train.best_metric=bbox/score"]
    common += ["dataloader.train.num_workers=0"]

    class Killed(LazyTrainer):
        def _evaluate(self):
            if self.iter == killed_at:
                raise OSError("killed in the evaluation")
            return super()._evaluate()

    trainer = Killed(load_config(CONFIG, overrides(tmp_path, "half", *common)))
    with pytest.raises(OSError, match="killed in the evaluation"):
        trainer.train()
    half, whole = (train(tmp_path, name, *common) for name in ("half", "whole"))
    assert (half._best.best, half._best.count_since) == (whole._best.best, whole._best.count_since)
    assert results(tmp_path / "half") == results(tmp_path / "whole")
    for name in ("model_final", "model_best"):
        one, other = (load(tmp_path / x / f"{name}.pth") for x in ("half", "whole"))
        assert differences(one, other) == []
    assert [k for k, v in results(tmp_path / "half").items() if "bbox/score" in v] == [5, 12]


@pytest.mark.parametrize(
    ("where", "iteration"), [("run_step", 5), ("run_step", 8), ("_evaluate", 9), ("_write", 7)]
)
def test_metrics_that_are_written_seldom(tmp_path, monkeypatch, where, iteration):
    """Evaluations between two lines of the log, and a kill between a checkpoint and its line."""
    common = ["train.log_period=4", "train.checkpointer.period=2", "train.eval_period=5"]
    common += ["train.max_iter=12", "dataloader.train.num_workers=0"]
    train(tmp_path, "whole", *common)
    expected = results(tmp_path / "whole")
    with_losses = [k for k, v in expected.items() if "total_loss" in v]
    assert with_losses == [3, 4, 7, 9, 11]  # every four, and those of the evaluations
    assert [k for k, v in expected.items() if "bbox/score" in v] == [4, 9, 12]

    class Killed(LazyTrainer):
        """Without what a failing training still does."""

        def build_hooks(self):
            ret = super().build_hooks()
            ret[-1].after_step = kill("_write", ret[-1].after_step)
            return ret

        def after_train(self):
            pass

    def kill(name, function):
        def killed(*args):
            if where == name and trainer.iter == iteration:
                raise OSError("killed")
            return function(*args)

        return killed

    trainer = Killed(load_config(CONFIG, overrides(tmp_path, "killed", *common)))
    for name in ("run_step", "_evaluate"):
        setattr(trainer, name, kill(name, getattr(trainer, name)))
    evaluation = next(x for x in trainer._hooks if isinstance(x, EvaluationHook))
    evaluation._function = trainer._evaluate
    with pytest.raises(OSError, match="killed"):
        trainer.train()
    assert results(tmp_path / "killed").keys() < expected.keys()
    train(tmp_path, "killed", *common)
    assert results(tmp_path / "killed") == expected


def test_a_longer_training_than_was_planned_keeps_the_best(tmp_path):
    """The last evaluation comes after the last checkpoint, which does not know of it."""
    seen = {}

    class Scripted(LazyTrainer):
        @classmethod
        def test(cls, cfg, model, evaluators=None):
            weights = model.head.cls_logits.weight.sum().item()
            seen.setdefault(weights, (50.0, 90.0, 40.0)[len(seen)])
            return {"bbox": {"AP": seen[weights]}}

    for max_iter in (10, 12):  # evaluations after 7 and 10 iterations; then after 12
        common = ["train.eval_period=7", "train.best_metric=bbox/AP", f"train.max_iter={max_iter}"]
        common += ["train.ema_decay=0", "dataloader.train.num_workers=0"]
        trainer = Scripted(load_config(CONFIG, overrides(tmp_path, "run", *common)))
        trainer.resume_or_load(resume=True)
        assert trainer._best.best == 50 or max_iter == 10
        trainer.train()
        best = load(tmp_path / "run/model_best.pth")
        assert best["bbox/AP"] == trainer._best.best == 90
        assert seen[best["model"]["head.cls_logits.weight"].sum().item()] == 90
    assert len(seen) == 3


def test_another_best_metric_starts_anew(tmp_path, caplog):
    common = ["train.eval_period=2", "dataloader.train.num_workers=0", "train.ema_decay=0"]
    train(tmp_path, "run", *common, "train.max_iter=4", "train.best_metric=bbox/score")
    metric = "train.best_metric=validation/total_loss"
    longer = train(tmp_path, "run", *common, "train.max_iter=6", metric, "train.best_mode=min")
    assert "best value is of ('bbox/score', 'max'), the config asks for ('validation" in caplog.text
    values = [
        x["validation/total_loss"] for k, x in results(tmp_path / "run").items() if k in (3, 6)
    ]
    assert longer._best.best == min(values)
    assert load(tmp_path / "run/model_best.pth")["validation/total_loss"] == min(values)


def test_a_failure_in_the_last_iteration_is_not_evaluated(tmp_path):
    common = ["train.max_iter=4", "train.eval_period=0", "train.best_metric=bbox/score"]
    train(tmp_path, "run", *common, "train.ema_decay=0", stop_after=3)
    assert not [x for x in results(tmp_path / "run").values() if "bbox/score" in x]
    assert not (tmp_path / "run/model_best.pth").exists()


def test_fewer_checkpoints_are_kept_from_a_resume_on(tmp_path):
    common = ["train.eval_period=0", "train.validation_loss=False", "train.best_metric="]
    common += ["train.ema_decay=0", "dataloader.train.num_workers=0", "train.checkpointer.period=1"]
    train(tmp_path, "run", *common, "train.checkpointer.max_to_keep=9", "train.max_iter=5")
    train(tmp_path, "run", *common, "train.checkpointer.max_to_keep=2", "train.max_iter=6")
    found = sorted(x.name for x in (tmp_path / "run").glob("model_0*.pth"))
    assert found == ["model_0000004.pth", "model_0000005.pth"]


def test_states_that_no_checkpoint_can_have(tmp_path, caplog):
    """Checkpoints are read without running code; numbers of NumPy would need it."""

    class Counter(HookBase):
        value: object = np.float64(0.5)

        def state_dict(self):
            more = [(np.int64(3), True, None, "x")]
            return {"value": self.value, "more": more, "late": self.late}

        def before_train(self):
            self.late = {np.int64(3): OrderedDict(a=1)}

        def load_state_dict(self, state_dict):
            self.value = state_dict["value"]
            assert state_dict["more"] == [(3, True, None, "x")]
            assert state_dict["late"] == {3: {"a": 1}}

    class Counting(LazyTrainer):
        def build_hooks(self):
            return [*super().build_hooks(), Counter()]

    common = ["train.eval_period=0", "train.validation_loss=False", "train.best_metric="]
    common += ["train.ema_decay=0", "dataloader.train.num_workers=0", "train.max_iter=2"]
    cfg = load_config(CONFIG, overrides(tmp_path, "run", *common))
    trainer = Counting(cfg)
    trainer.optimizer.param_groups[0]["lr"] = np.float64(0.1)  # as a schedule may answer
    trainer.train()
    again = Counting(cfg)
    again.resume_or_load(resume=True)
    assert type(again._hooks[-1].value) is float and again._hooks[-1].value == 0.5

    for value in (np.zeros(2), defaultdict(float), {(1, frozenset()): 1}):
        trainer = Counting(cfg)
        trainer._hooks[-1].value = value
        with pytest.raises(TypeError, match=r"trainer.hooks.*Counter.value.* is of type .*; expec"):
            trainer.train()
    trainer = Counting(cfg)
    trainer.run_step = lambda: setattr(trainer._hooks[-1], "value", np.zeros(2))
    trainer.train()  # its weights are kept
    assert "This checkpoint cannot be resumed: model_final.trainer.hooks" in caplog.text


def test_an_early_stop_that_a_kill_prevented(tmp_path):
    common = ["train.max_iter=20", "train.checkpointer.period=3", "train.eval_period=6"]
    common += ["train.best_metric=bbox/score", "train.best_mode=min", "train.ema_decay=0"]
    common += ["train.early_stop_patience=1", "dataloader.train.num_workers=0"]

    class Killed(LazyTrainer):
        def _evaluate(self):
            if self.iter == 11:
                raise OSError("killed in the evaluation")
            return super()._evaluate()

    trainer = Killed(load_config(CONFIG, overrides(tmp_path, "half", *common)))
    with pytest.raises(OSError, match="killed in the evaluation"):
        trainer.train()
    torch.rand(7)  # another random state than the checkpoint's
    half, whole = (train(tmp_path, name, *common) for name in ("half", "whole"))
    assert half.iter == whole.iter == 11
    one, other = (load(tmp_path / x / "model_final.pth") for x in ("half", "whole"))
    assert differences(one, other) == []


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path):
    """Each point of the writing at which a process can die, by a fork that dies there."""
    model = torch.nn.Linear(2, 2)
    checkpointer = TrainingCheckpointer(model, str(tmp_path))
    with torch.no_grad():
        model.weight.fill_(1.0)
    checkpointer.save("model_0000001", iteration=1)

    for function in ("fsync", "replace"):
        for name in ("model_0000001", "model_0000002"):  # over the last one, and a new one
            child = os.fork()
            if child == 0:
                setattr(os, function, lambda *args: os.kill(os.getpid(), signal.SIGKILL))
                with torch.no_grad():
                    model.weight.fill_(2.0)
                checkpointer.save(name, iteration=2)
                os._exit(0)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
            with torch.no_grad():
                model.weight.fill_(3.0)
            assert checkpointer.resume_or_load("", resume=True)["iteration"] == 1
            assert torch.equal(model.weight, torch.ones(2, 2))

    # A full disk: an error, no half file, and the one before is still the last.
    def no_space(*args):
        raise OSError("No space left on device")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", no_space)
        checkpointer.save("model_0000003", iteration=3)
    assert not (tmp_path / "model_0000003.pth").exists()
    assert checkpointer.get_checkpoint_file().endswith("model_0000001.pth")
    checkpointer.save("model_0000002", iteration=2)  # over what the kills have left
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        "last_checkpoint", "model_0000001.pth", "model_0000002.pth",
    ]  # fmt: skip


def test_what_cannot_be_resumed_says_so(tmp_path, caplog):
    common = ["train.max_iter=2", "train.eval_period=0", "train.validation_loss=False"]
    common += ["train.best_metric=", "train.ema_decay=0"]
    train(tmp_path, "run", *common)
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=r"head.cls_logits.weight: \(3, .* in the file, \(4,"):
        train(tmp_path, "run", *common, "model.num_classes=4")
    train(tmp_path, "run", *common, "train.max_iter=3", "dataloader.train.dataset.count=12")
    assert "had 11 images, this one has 12" in caplog.text

    checkpoint = load(folder / "model_final.pth")
    checkpoint["trainer"]["rng"] *= 2
    torch.save(checkpoint, folder / "model_final.pth")
    train(tmp_path, "run", *common, "train.max_iter=4")
    assert "random states of 2 processes, this training has 1" in caplog.text

    train(tmp_path, "run", *common, "train.max_iter=5", "optimizer.lr=0.003")
    assert "optimizer's lr is 0.003 in the config and 0.1 in the checkpoint" in caplog.text
    assert "momentum" not in caplog.text
    train(tmp_path, "run", *common, "train.max_iter=6", "optimizer.momentum=0.5")
    assert "optimizer's momentum is 0.5 in the config and 0.9 in the checkpoint" in caplog.text
    with pytest.raises(ValueError, match="is of the optimizer SGD, the config's is AdamW"):
        cfg = load_config(CONFIG, overrides(tmp_path, "run", *common))
        cfg.optimizer = {"_target_": AdamW, "params": cfg.optimizer.params, "lr": 0.1}
        LazyTrainer(cfg).resume_or_load(resume=True)
    with pytest.raises(ValueError, match="has done 6 iterations, but the config asks for 2"):
        train(tmp_path, "run", *common)

    torch.save({"model": checkpoint["model"], "iteration": 1}, folder / "weights.pth")
    (folder / "last_checkpoint").write_text("weights.pth")
    with pytest.raises(ValueError, match="weights.pth has no state .* holds weights alone, or"):
        train(tmp_path, "run", *common)
    (folder / "last_checkpoint").write_text("model_final.pth")
    del checkpoint["trainer"]["_trainer"]
    torch.save(checkpoint, folder / "model_final.pth")
    with pytest.raises(ValueError, match=r"not written by gfocal's trainer.*train.init_checkpoint"):
        train(tmp_path, "run", *common)
    (folder / "model_final.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"last_checkpoint names .*model_final.pth"):
        train(tmp_path, "run", *common)


def test_a_new_training_in_an_old_folder_is_not_resumed_as_the_old_one(tmp_path, caplog):
    common = ["train.eval_period=0", "train.validation_loss=False", "train.best_metric="]
    common += ["train.ema_decay=0", "dataloader.train.num_workers=0"]
    train(tmp_path, "run", *common, "train.max_iter=2")
    new = LazyTrainer(load_config(CONFIG, overrides(tmp_path, "run", *common, "train.max_iter=4")))
    new.resume_or_load(resume=False)
    new.run_step = lambda: (_ for _ in ()).throw(OSError("killed before the first checkpoint"))
    with pytest.raises(OSError, match="killed before"):
        new.train()
    assert "has checkpoints of an earlier training" in caplog.text
    assert (tmp_path / "run/last_checkpoint.old").read_text() == "model_final.pth"
    resumed = LazyTrainer(load_config(CONFIG, overrides(tmp_path, "run", *common)))
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 0
    assert "has no last_checkpoint to resume from" in caplog.text
    assert "may replace model_final.pth. To resume, write one's name" in caplog.text


def test_a_seed_makes_it_repeat_and_another_does_not(tmp_path):
    common = ["train.max_iter=4", "train.eval_period=0", "train.validation_loss=False"]
    common += ["train.best_metric=", "dataloader.train.num_workers=0"]
    losses = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        np.random.seed(len(losses))  # of no importance
        trainer = train(tmp_path, name, *common, f"train.seed={seed}")
        losses.append([x for x, _ in trainer.storage.history("total_loss").values()])
        assert torch.are_deterministic_algorithms_enabled()
    assert losses[0] == losses[1]
    assert not any(math.isclose(x, y) for x, y in zip(losses[0], losses[2]))
