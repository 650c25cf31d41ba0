"""What a config can add to a training, and that none of it is there unasked."""

import contextlib
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn

from gfocal.engine import LazyTrainer, load_config
from gfocal.engine.best import BestMetric
from gfocal.engine.ema import EMAHook
from gfocal.engine.evaluation import evaluation_leaves_no_trace
from gfocal.engine.hooks import at_last_iteration
from gfocal.engine.validation import ValidationBatches, validation_losses
from gfocal.process.rng import rng_state
from gfocal.weights import StrictCheckpointer, load_weights_only
from tests.helpers.resume_config import MeanScore
from tests.helpers.trainings import records

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = str(Path(__file__).parents[1] / "helpers/resume_config.py")
OFF = ["train.ema_decay=0", "train.best_metric=", "train.validation_loss=False"]
QUICK = [
    "dataloader.train.num_workers=0",
    "train.max_iter=6",
    "train.eval_period=2",
    "train.seed=-1",
]


@pytest.fixture
def config(tmp_path):
    """A function that loads resume_config.py with all that is optional switched off."""

    def load(*overrides: str):
        paths = [f"data.folder={tmp_path}/images", f"train.output_dir={tmp_path}/run"]
        off = [*OFF, "train.deterministic=False"]
        return load_config(CONFIG, [*paths, *QUICK, *off, *overrides])

    return load


def metrics(tmp_path: Path) -> list[dict]:
    return records(tmp_path / "run")


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_nothing_is_there_unasked(config, tmp_path):
    results = LazyTrainer(config()).train()
    assert list(results) == ["bbox"]
    found = sorted(x.name for x in (tmp_path / "run").glob("*.pth"))
    assert found == ["model_final.pth"]
    keys = {key for line in metrics(tmp_path) for key in line}
    assert not [key for key in keys if key.startswith(("ema", "validation"))]
    assert not torch.are_deterministic_algorithms_enabled()


def test_ema_by_hand():
    """A weight of 0, then 10, 20, 30 after the steps: the average starts at the first, then keeps
    2/11, 3/12, ... of itself, until that exceeds the decay of 0.2."""
    model = nn.BatchNorm1d(1)
    hook = EMAHook(model, decay=0.2)
    expected = [10.0, 10 * 2 / 11 + 20 * 9 / 11]
    expected.append(expected[-1] * 0.2 + 30 * 0.8)
    for step, value in enumerate(expected):
        with torch.no_grad():
            model.weight.fill_(10.0 * (step + 1))
            model.running_mean.fill_(10.0 * (step + 1))
            model.num_batches_tracked.fill_(step + 7)
        hook.after_step()
        assert hook.model.weight.item() == pytest.approx(value)
        assert hook.model.running_mean.item() == pytest.approx(value)  # as the weights need it
        assert hook.model.num_batches_tracked.item() == step + 7
    other = EMAHook(nn.BatchNorm1d(1), decay=0.2)
    other.load_state_dict(hook.state_dict())
    hook.after_step(), other.after_step()
    assert other.model.weight.item() != hook.model.weight.item()  # of another model
    assert other.model.weight.item() == pytest.approx(expected[-1] * 0.2 + 1 * 0.8)
    for decay in (-0.1, 1.0, 1.5):
        with pytest.raises(ValueError, match=f"ema_decay is {decay}; expected a number between"):
            EMAHook(model, decay)


def test_averaged_weights_are_evaluated_and_saved_beside_the_raw_ones(config, tmp_path):
    trainer = LazyTrainer(config("train.ema_decay=0.5"))
    raw = weights(trainer.model)
    history = recorded(trainer, lambda: weights(trainer.model))
    results = trainer.train()
    average = history[0]
    for count, values in enumerate(history[1:], start=1):
        decay = min(0.5, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * values
    torch.testing.assert_close(weights(trainer._ema.model), average)
    assert not torch.equal(weights(trainer.model), raw)
    assert results["ema"]["bbox"]["score"] != results["bbox"]["score"]
    assert metrics(tmp_path)[-1]["ema/bbox/score"] == results["ema"]["bbox"]["score"]

    for name, expected in (("model_final", trainer.model), ("model_final_ema", trainer._ema.model)):
        loaded = LazyTrainer.build_model(config())
        StrictCheckpointer(loaded).load(str(tmp_path / "run" / f"{name}.pth"))
        assert torch.equal(weights(loaded), weights(expected))
        assert load_weights_only(tmp_path / f"run/{name}.pth")["iteration"] == 5
    path = f"train.init_checkpoint={tmp_path}/run/model_final_ema.pth"
    again = LazyTrainer.evaluate(config(path))
    assert again["bbox"]["score"] == results["ema"]["bbox"]["score"]


def test_best_metric_by_hand():
    saved = []
    best = BestMetric("bbox/AP", "max", 2, lambda name, extra: saved.append((name, extra)))
    exhausted = []
    values = [math.nan, math.nan, 5.0, 5.0, 7.0, 6.0, -math.inf, 8.0]
    for iteration, value in enumerate(values, start=-1):
        best.update({"bbox": {"AP": value}}, iteration)
        exhausted.append(best.should_stop())
    assert [(name, x["iteration"], x["bbox/AP"]) for name, x in saved] == [
        ("model_best", 1, 5.0), ("model_best", 3, 7.0), ("model_best", 6, 8.0),
    ]  # fmt: skip
    # Neither nan nor an equal value is better; two evaluations without a better one are the end,
    # but not before there is one at all: the AP of a model without detections is nan.
    assert exhausted == [False, False, False, False, False, False, True, False]

    lowest = BestMetric("validation/total_loss", "min", 0, lambda name, extra: None)
    values = []
    for value in (3.0, 2.0, 4.0, 1.0, 2.0, 2.0):
        lowest.update({"validation": {"total_loss": value}}, 0)
        values.append(lowest.best)
    assert values == [3.0, 2.0, 2.0, 1.0, 1.0, 1.0]
    assert not lowest.should_stop()  # a patience of 0 never ends
    with pytest.raises(
        ValueError, match="best_metric is 'bbox/AP', but an evaluation gives a/b, c"
    ):
        best.update({"a": {"b": 1.0}, "c": 2.0}, 0)
    with pytest.raises(ValueError, match='best_mode is \'largest\'; expected "max" or "min"'):
        BestMetric("a", "largest", 0, print)
    with pytest.raises(ValueError, match="early_stop_patience is -1; expected 0 or more"):
        BestMetric("a", "max", -1, print)
    with pytest.raises(ValueError, match="early_stop_patience needs best_metric"):
        BestMetric("", "max", 3, print)


def recorded(trainer: LazyTrainer, look: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    """A list that gets what ``look`` sees after the hooks of each step but the evaluation's."""
    seen = []

    class Recorder(HookBase):
        def after_step(self):
            seen.append(look())

    trainer.register_hooks([Recorder()])
    trainer._hooks.insert(3, trainer._hooks.pop())  # after the scheduler and the averaged weights
    return seen


class Scripted(MeanScore):
    """Says one of these after the other, as if training went up, down and up again."""

    values = (3.0, 5.0, 4.0, 4.5, 4.9, 6.0)
    count = 0

    def evaluate(self):
        Scripted.count += 1
        return {"bbox": {"AP": self.values[Scripted.count - 1]}}


class ScriptedTrainer(LazyTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name=None):
        return Scripted()


@pytest.fixture
def _from_the_start():
    Scripted.count = 0


@pytest.mark.usefixtures("_from_the_start")
def test_the_best_of_the_averaged_weights(config, tmp_path, monkeypatch):
    # The averaged weights are evaluated before the raw ones, after 2, 4 and 6 iterations.
    monkeypatch.setattr(Scripted, "values", (3.0, 9.0, 4.0, 9.0, 3.5, 9.0))
    trainer = ScriptedTrainer(config("train.ema_decay=0.9", "train.best_metric=ema/bbox/AP"))
    seen = recorded(trainer, lambda: weights(trainer._ema.model))
    trainer.train()
    best = load_weights_only(str(tmp_path / "run/model_best.pth"))
    assert (best["iteration"], best["ema/bbox/AP"]) == (3, 4.0)
    loaded = LazyTrainer.build_model(config())
    StrictCheckpointer(loaded).load(str(tmp_path / "run/model_best.pth"))
    assert torch.equal(weights(loaded), seen[3])


@pytest.mark.usefixtures("_from_the_start")
def test_early_stop(config, tmp_path, caplog):
    options = ["train.max_iter=12", "train.best_metric=bbox/AP", "train.checkpointer.period=5"]
    options += ["train.early_stop_patience=3"]
    trainer = ScriptedTrainer(config(*options))
    seen = recorded(trainer, lambda: weights(trainer.model))
    with caplog.at_level(logging.INFO):
        results = trainer.train()
    assert len(seen) == 10  # 3, 5, then 4, 4.5 and 4.9 after iterations 2, 4, 6, 8 and 10
    assert results == {"bbox": {"AP": 4.9}}
    assert "Exception" not in caplog.text
    assert "bbox/AP has not become better than 5 in 3 evaluations" in caplog.text
    folder = tmp_path / "run"
    best = load_weights_only(str(folder / "model_best.pth"))
    assert (best["iteration"], best["bbox/AP"]) == (3, 5.0)
    loaded = LazyTrainer.build_model(config())
    StrictCheckpointer(loaded).load(str(folder / "model_best.pth"))
    assert torch.equal(weights(loaded), seen[3])
    final = load_weights_only(str(folder / "model_final.pth"))
    assert final["iteration"] == 9
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"  # not model_best.pth
    assert metrics(tmp_path)[-1]["bbox/AP"] == 4.9

    Scripted.count = 4
    again = ScriptedTrainer(config(*options))  # a resume finds that it had come to its end
    again.resume_or_load(resume=True)
    assert again.train() == {"bbox": {"AP": 4.9}}
    assert torch.equal(weights(again.model), seen[-1])
    assert again._best.count_since == 3  # that evaluation was counted before

    # Killed before all files were there: averaged weights were asked for, but never written.
    Scripted.count = 4
    averaged = ScriptedTrainer(config(*options, "train.ema_decay=0.9"))
    averaged.resume_or_load(resume=True)
    before = (folder / "model_final.pth").read_bytes()
    averaged.train()
    assert (folder / "model_final.pth").read_bytes() == before
    assert load_weights_only(str(folder / "model_final_ema.pth"))["iteration"] == 9
    loaded = LazyTrainer.build_model(config())
    StrictCheckpointer(loaded).load(str(folder / "model_final_ema.pth"))
    assert torch.equal(weights(loaded), seen[-1])
    assert "Stopped after iteration 9: bbox/AP has" in caplog.text

    Scripted.count = 5
    longer = ScriptedTrainer(config(*options, "train.early_stop_patience=4"))
    longer.resume_or_load(resume=True)
    longer.train()
    assert Scripted.count == 6  # 6 after iteration 12, and none before
    assert longer._best.best == 6.0
    assert metrics(tmp_path)[-1]["iteration"] == 12


def test_ema_that_a_checkpoint_does_not_have_starts_from_its_weights(config, tmp_path):
    first = LazyTrainer(config("train.checkpointer.period=2"))
    first.train()
    options = ["train.ema_decay=0.9", "train.best_metric=ema/bbox/score"]
    finished = LazyTrainer(config(*options))
    finished.resume_or_load(resume=True)
    finished.train()
    for name in ("model_final_ema", "model_best"):
        loaded = LazyTrainer.build_model(config())
        StrictCheckpointer(loaded).load(str(tmp_path / f"run/{name}.pth"))
        assert torch.equal(weights(loaded), weights(first.model))


def test_results_of_a_test_that_gives_none(config):
    class Silent(LazyTrainer):
        @classmethod
        def test(cls, cfg, model, evaluators=None):
            return None

    assert Silent(config("train.ema_decay=0.9", "train.max_iter=1")).train() == {"ema": {}}


def test_a_metric_that_an_evaluation_does_not_give_is_an_error(config):
    trainer = LazyTrainer(config("train.best_metric=bbox/AP"))
    with pytest.raises(ValueError, match="best_metric is 'bbox/AP', .* gives bbox/score"):
        trainer.train()
    with pytest.raises(ValueError, match=r"'ema/bbox/AP', but ema_decay .* is 0"):
        LazyTrainer(config("train.best_metric=ema/bbox/AP"))
    with pytest.raises(ValueError, match=r"'validation/total_loss', but validation_loss .* False"):
        LazyTrainer(config("train.best_metric=validation/total_loss"))


@pytest.mark.usefixtures("_from_the_start")
def test_an_early_stop_that_a_resume_asks_for(config, tmp_path):
    options = ["train.max_iter=12", "train.best_metric=bbox/AP", "train.checkpointer.period=7"]
    final = tmp_path / "run/model_final.pth"

    def resumed(patience):
        trainer = ScriptedTrainer(config(*options, f"train.early_stop_patience={patience}"))
        trainer.resume_or_load(resume=True)
        return trainer

    trainer = resumed(9)
    trainer.run_step = lambda step=trainer.run_step: step() if trainer.iter < 7 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_0000006.pth"
    final.write_text("of another training in this folder")
    # The evaluations after 2, 4 and 6 iterations gave 3, 5 and 4. One more is for the results.
    stopped = resumed(1)
    assert stopped.train() == {"bbox": {"AP": 4.5}}
    assert stopped._best.count_since == 1
    assert load_weights_only(final)["iteration"] == 6
    assert load_weights_only(final)["trainer"]["data"]["num_batches"] == 7
    # From there to the evaluation after 8 iterations, and no checkpoint in between.
    assert resumed(2).train() == {"bbox": {"AP": 4.9}}
    assert load_weights_only(final)["iteration"] == 7


@pytest.mark.usefixtures("_from_the_start")
def test_a_stop_says_where_and_whether_at_a_resume(config, tmp_path):
    options = ["train.max_iter=12", "train.best_metric=bbox/AP", "train.early_stop_patience=1"]
    stops, seen = [], []

    class Stopped(ScriptedTrainer):
        def _end_early(self, stop):
            stops.append((stop.iteration, stop.at_resume, stop.reason))
            super()._end_early(stop)

        def after_train(self):
            seen.append((self.iter, self.start_iter))
            super().after_train()

    Stopped(config(*options)).train()  # 3, 5 and 4 after iterations 2, 4 and 6
    resumed = Stopped(config(*options))
    resumed.resume_or_load(resume=True)
    resumed.train()
    reason = "bbox/AP has not become better than 5 in 1 evaluations"
    assert stops == [(5, False, reason), (5, True, reason)]
    assert seen == [(5, 0), (5, 6)]
    assert resumed.iter == resumed.storage.iter == 5

    # A finished training, whose last evaluation is no better, is asked for more iterations.
    Scripted.count = 0
    for name in ("model_final.pth", "last_checkpoint"):
        (tmp_path / "run" / name).unlink()
    Stopped(config(*options, "train.max_iter=6")).train()
    before = (tmp_path / "run/model_final.pth").read_bytes()
    Scripted.count = 2
    longer = Stopped(config(*options))
    longer.resume_or_load(resume=True)
    longer.train()
    assert stops[2:] == [(5, True, reason)]  # the evaluation that is made up for
    assert (tmp_path / "run/model_final.pth").read_bytes() == before


def test_time_is_set_forward_again_after_a_failure(config):
    trainer = LazyTrainer(config())
    trainer.start_iter = trainer.iter = 4
    trainer.storage = EventStorage(4)
    with pytest.raises(OSError, match="in between"), at_last_iteration(trainer):
        assert trainer.iter == trainer.storage.iter == 3
        raise OSError("in between")
    assert trainer.iter == trainer.storage.iter == 4


def test_validation_loss_by_hand(config):
    cfg = config()
    model = LazyTrainer.build_model(cfg)
    (batches,) = LazyTrainer.build_validation_batches(cfg)
    losses = validation_losses(model, batches)
    expected = {}
    model.train()
    model.backbone.norm.eval()
    model.backbone.dropout.eval()
    with EventStorage(1), torch.no_grad():
        images = [image for (image,) in batches]
        assert [x["image_id"] for x in images] == [0, 1, 2]
        for image in images:
            for name, loss in model([image]).items():
                expected[name] = expected.get(name, 0) + loss.item() / 3
    assert losses.pop("total_loss") == pytest.approx(sum(expected.values()))
    assert losses == pytest.approx(expected)
    with pytest.raises(
        ValueError, match="needs a test mapper with Detectron2's is_train, got a fu"
    ):
        ValidationBatches([], lambda x: x, 0)


def test_validation_does_not_change_what_no_state_dict_has():
    class Normalised(torch.nn.Linear):
        """As Detectron2's RetinaNet, whose normaliser follows the batches."""

        normalizer = 100.0

        def forward(self, batch):
            self.normalizer = 0.9 * self.normalizer + 0.1 * len(batch)
            return {"loss": super().forward(torch.ones(1)).sum() / self.normalizer}

    model = Normalised(1, 1)
    validation_losses(model, [["image"], ["image"]])
    assert model.normalizer == 100


@pytest.mark.parametrize(("training", "expected"), [(None, 1), (0, 1), (1000, 999)])
def test_validation_is_at_the_trainings_iteration(training, expected):
    """As a matcher's warm-up must be over there when it is over in the training."""
    seen = []

    class Model(torch.nn.Linear):
        def forward(self, batch):
            seen.append(get_event_storage().iter)
            return {"loss": super().forward(torch.ones(1)).sum()}

    with contextlib.ExitStack() as stack:
        if training is not None:
            stack.enter_context(EventStorage(training))
        validation_losses(Model(1, 1), [["image"]])
    assert seen == [expected]


def test_validation_leaves_no_trace(config, tmp_path):
    trainer = LazyTrainer(config("train.validation_loss=True", "train.max_iter=3"))
    trainer.train()
    model = trainer.model
    model.head.eval()  # as someone may have it
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes, states = [m.training for m in model.modules()], rng_state()
    with EventStorage() as storage:
        results = trainer._evaluate()
        assert storage.histories() == {}  # positives_per_image would be of the wrong images
    assert results["validation"]["total_loss"] > 0
    after = rng_state()
    assert torch.equal(after["torch"], states["torch"])
    assert torch.equal(after["numpy"][1], states["numpy"][1])
    assert after["numpy"][2:] == states["numpy"][2:]
    assert after["python"] == states["python"]
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(KeyError), evaluation_leaves_no_trace(model):
        model.eval()
        raise KeyError
    assert [m.training for m in model.modules()] == modes
    last = metrics(tmp_path)[-1]
    parts = ("loss_cls", "loss_box_reg", "loss_dfl")
    total = sum(last[f"validation/{name}"] for name in parts)
    assert last["validation/total_loss"] == pytest.approx(total)
