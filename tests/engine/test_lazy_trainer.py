import copy
import logging
import math
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall, get_cfg, instantiate
from detectron2.engine import AMPTrainer, DefaultTrainer, hooks
from detectron2.solver import LRMultiplier
from detectron2.utils.events import EventStorage, JSONWriter
from fvcore.common.param_scheduler import ConstantParamScheduler
from omegaconf import OmegaConf

from gfocal.data import probes
from gfocal.engine import LazyTrainer
from gfocal.export import fast_dtype
from tests.helpers.toy import ToyDetector, ToyEvaluator
from tests.helpers.trainings import records


def weights(trainer: LazyTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_trains_evaluates_and_writes_what_default_trainer_does(toy_config, tmp_path):
    cfg = toy_config("train.max_iter=40", "train.eval_period=20")
    trainer = LazyTrainer(cfg)
    assert isinstance(trainer, DefaultTrainer)
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    assert results == trainer._last_eval_results == {"bbox": {"AP": 50.0, "images": 2.0}}
    lines = records(tmp_path / "output")
    assert lines[-1]["bbox/AP"] == 50.0
    assert [line["iteration"] for line in lines if "bbox/AP" in line] == [19, 40]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert losses[-1] < losses[0] / 2
    assert (tmp_path / "output" / "model_final.pth").is_file()
    assert (tmp_path / "output" / "last_checkpoint").read_text() == "model_final.pth"


def test_builders_read_the_attached_config(toy_config):
    cfg = toy_config("data.num_classes=5", "optimizer.lr=0.25", "train.max_iter=8")
    before = OmegaConf.to_container(cfg, resolve=False)
    model = LazyTrainer.build_model(cfg)
    assert model.num_classes == 5  # "${data.num_classes}"
    optimizer = LazyTrainer.build_optimizer(cfg, model)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 2
    scheduler = LazyTrainer.build_lr_scheduler(cfg, optimizer)
    assert isinstance(scheduler, LRMultiplier)
    assert optimizer.param_groups[0]["lr"] == 0.25 * 0.5  # warm-up factor
    # The config is still only a description: it can be copied and saved.
    assert OmegaConf.to_container(cfg, resolve=False) == before
    assert copy.deepcopy(cfg) == cfg


class OwnModel(ToyDetector):
    pass


class OwnEvaluator(ToyEvaluator):
    def evaluate(self):
        return {"bbox": {"AP": 1.0}}


@pytest.mark.parametrize(
    "method",
    ["model", "optimizer", "lr_scheduler", "train_loader", "test_loader", "evaluator", "writers"],
)
def test_subclass_overrides_one_builder(toy_config, method):
    cfg = toy_config("train.max_iter=2")
    calls = []

    class OwnTrainer(LazyTrainer):
        pass

    def build_model(cls, cfg):
        calls.append("model")
        return OwnModel(num_classes=2)

    def build_optimizer(cls, cfg, model):
        calls.append("optimizer")
        return torch.optim.AdamW(model.parameters(), lr=1e-3)

    def build_lr_scheduler(cls, cfg, optimizer):
        calls.append("lr_scheduler")
        return LRMultiplier(optimizer, ConstantParamScheduler(0.5), max_iter=9)

    def build_train_loader(cls, cfg):
        calls.append("train_loader")
        return instantiate(cfg.dataloader.train)

    def build_test_loader(cls, cfg, dataset_name):
        calls.append("test_loader")
        assert dataset_name == "toy_val"
        return instantiate(cfg.dataloader.test)

    def build_evaluator(cls, cfg, dataset_name):
        calls.append("evaluator")
        assert dataset_name == "toy_val"
        return OwnEvaluator()

    def build_writers(self):
        calls.append("writers")
        return [JSONWriter(f"{self.cfg.train.output_dir}/own.json")]

    override = locals()[f"build_{method}"]
    # The config's own node is gone: the override is all that is needed.
    node = {
        "model": "model", "optimizer": "optimizer", "lr_scheduler": "lr_multiplier",
        "train_loader": None, "test_loader": None, "evaluator": "dataloader.evaluator",
    }.get(method)  # fmt: skip
    if node:
        OmegaConf.update(cfg, node, None, merge=False)
    if method == "writers":
        Path(cfg.train.output_dir).mkdir()
    else:
        override = classmethod(override)
    setattr(OwnTrainer, f"build_{method}", override)

    trainer = OwnTrainer(cfg)
    results = trainer.train()
    assert set(calls) == {method}
    if method == "model":
        assert isinstance(trainer.model, OwnModel)
    if method == "optimizer":
        assert isinstance(trainer.optimizer, torch.optim.AdamW)
    if method == "lr_scheduler":
        assert trainer.optimizer.param_groups[0]["lr"] == 0.1 * 0.5
    if method == "evaluator":
        assert results == {"bbox": {"AP": 1.0}}
    if method == "writers":
        assert "loss_box" in (Path(cfg.train.output_dir) / "own.json").read_text()


class Recorder(hooks.HookBase):
    def __init__(self, events):
        self.events = events

    def before_train(self):
        self.events.append("before_train")

    def after_step(self):
        self.events.append(self.trainer.iter)

    def after_train(self):
        # EvalHook has run, and the results are there
        self.events.append(self.trainer._last_eval_results["bbox"]["AP"])


def test_hooks_by_register_hooks_and_by_build_hooks(toy_config):
    events, inserted = [], []

    class OwnTrainer(LazyTrainer):
        def build_hooks(self):
            ret = super().build_hooks()
            ret.insert(-1, Recorder(inserted))
            return ret

    trainer = OwnTrainer(toy_config("train.max_iter=3"))
    trainer.register_hooks([Recorder(events)])
    trainer.train()
    assert events == inserted == ["before_train", 0, 1, 2, 50.0]


def test_resume_continues_with_weights_momentum_and_learning_rate(toy_config):
    torch.manual_seed(0)
    whole = LazyTrainer(toy_config())
    whole.train()

    cfg = toy_config("train.output_dir=${data.folder}/../half")
    torch.manual_seed(0)
    half = LazyTrainer(cfg)
    half.max_iter = 3  # as if it had been stopped there
    half.train()
    torch.manual_seed(5)  # other initial weights, to be replaced by the checkpoint's
    rest = LazyTrainer(cfg)
    iterations = []
    rest.register_hooks([Recorder(iterations)])
    rest.resume_or_load(resume=True)
    assert rest.start_iter == 3
    rest.train()
    assert iterations[1:-1] == [3, 4, 5]
    # One training image: every batch is the same, so equal weights need equal momentum and rates.
    torch.testing.assert_close(weights(rest), weights(whole), rtol=0, atol=0)
    rates = [trainer.optimizer.param_groups[0]["lr"] for trainer in (rest, whole)]
    assert rates[0] == rates[1] == pytest.approx(0.01)

    done = LazyTrainer(cfg)  # resuming a finished run evaluates it again
    done.resume_or_load(resume=True)
    assert done.start_iter == 6
    assert done.train() == {"bbox": {"AP": 50.0, "images": 2.0}}


def test_the_gradient_scaler_is_resumed(toy_config):
    """Detectron2's AMPTrainer steps on CUDA only; what it saves can be looked at anywhere."""

    def trainer(scale=None):
        ret = LazyTrainer(toy_config())
        if scale is not None:
            scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            parts = (ret._trainer.model, ret._trainer.data_loader, ret._trainer.optimizer)
            ret._trainer = AMPTrainer(*parts, grad_scaler=scaler)
        return ret

    saving = trainer(scale=512.0)
    saving.iter = 3
    saving.checkpointer.save("model_0000003")
    resumed = trainer(scale=65536.0)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 4
    assert resumed._trainer.grad_scaler.state_dict()["scale"] == 512.0
    trainer().resume_or_load(resume=True)  # AMP switched off
    without = trainer()
    without.iter = 3
    without.checkpointer.save("model_0000003")
    switched_on = trainer(scale=1024.0)
    switched_on.resume_or_load(resume=True)
    assert switched_on._trainer.grad_scaler.state_dict()["scale"] == 1024.0


def test_initial_weights_are_loaded_without_the_rest(toy_config, tmp_path):
    first = LazyTrainer(toy_config())
    first.train()
    path = tmp_path / "output" / "model_final.pth"
    second = LazyTrainer(toy_config(f"train.init_checkpoint={path}"))
    assert not torch.equal(weights(second), weights(first))
    second.resume_or_load(resume=False)
    assert torch.equal(weights(second), weights(first))
    assert second.start_iter == 0
    assert not second.optimizer.state

    missing = LazyTrainer(toy_config("train.init_checkpoint=/nowhere/w.pth"))
    with pytest.raises(FileNotFoundError, match="/nowhere/w.pth"):
        missing.resume_or_load(resume=False)
    # With a checkpoint to resume from, the initial weights play no part.
    missing.resume_or_load(resume=True)
    assert missing.start_iter == 6


def test_without_evaluator_training_still_ends(toy_config, caplog):
    cfg = toy_config("train.max_iter=1")
    del cfg.dataloader["evaluator"]
    with caplog.at_level(logging.WARNING):
        assert LazyTrainer(cfg).train() == {}
    assert "dataloader.evaluator" in caplog.text


def test_several_test_datasets_are_evaluated_one_by_one(toy_config):
    cfg = toy_config("dataloader.test.dataset.names=[toy_val,toy_other]")
    names = []

    class OwnTrainer(LazyTrainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            evaluator = super().build_evaluator(cfg, dataset_name)
            names.append(evaluator.dataset_name)  # follows by interpolation
            return evaluator

        @classmethod
        def build_test_loader(cls, cfg, dataset_name):
            loader = super().build_test_loader(cfg, dataset_name)
            names.append(next(iter(loader))[0]["file_name"].rsplit("/", 1)[-1])
            return loader

    results = OwnTrainer.test(cfg, OwnTrainer.build_model(cfg))
    assert names == ["toy_val", "toy_val_0.png", "toy_other", "toy_other_0.png"]
    assert list(results) == ["toy_val", "toy_other"]
    assert results["toy_other"]["bbox"]["images"] == 2

    own = [ToyEvaluator(), OwnEvaluator()]
    results = LazyTrainer.test(cfg, LazyTrainer.build_model(cfg), own)
    assert results["toy_other"]["bbox"]["AP"] == 1.0
    with pytest.raises(ValueError, match="1 evaluators for 2 test datasets"):
        LazyTrainer.test(cfg, LazyTrainer.build_model(cfg), ToyEvaluator())


def test_each_of_several_test_datasets_has_its_folder(toy_config):
    cfg = toy_config("dataloader.test.dataset.names=[toy_val,toy_other]")
    cfg.dataloader.evaluator = LazyCall(Namespace)(output_dir="${train.output_dir}/inference")
    folders = [LazyTrainer.build_evaluator(cfg, x).output_dir for x in ("toy_val", "toy_other")]
    inference = f"{cfg.train.output_dir}/inference"
    assert folders == [f"{inference}/toy_val", f"{inference}/toy_other"]
    cfg.dataloader.test.dataset.names = "toy_val"
    assert LazyTrainer.build_evaluator(cfg, "toy_val").output_dir == inference
    cfg = toy_config("dataloader.test.dataset.names=[toy_val,toy_other]", "train.max_iter=1")
    cfg.train.best_metric = "bbox/AP"
    with pytest.raises(ValueError, match="several test datasets: toy_val, toy_other"):
        LazyTrainer(cfg)
    cfg.train.best_metric = "toy_other/bbox/AP"
    assert LazyTrainer(cfg).train()["toy_other"]


def test_amp_on_a_cpu_is_bfloat16_autocast(toy_config):
    cfg = toy_config("train.amp.enabled=True", "train.max_iter=40")
    trainer = LazyTrainer(cfg)
    before = weights(trainer)
    trainer.train()
    assert weights(trainer).dtype == torch.float32
    assert not torch.equal(weights(trainer), before)
    losses = [loss for loss, _ in trainer.storage.history("total_loss").values()]
    assert losses[-1] < losses[0] / 2
    trainer.model.seen_dtype = None
    with EventStorage():
        trainer.run_step()
    assert trainer.model.seen_dtype == torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_refused(toy_config):
    with pytest.raises(ValueError, match="no CUDA device.*train.device=cpu"):
        LazyTrainer(toy_config("train.device=cuda"))


def test_wrong_configs_are_refused(toy_config):
    with pytest.raises(TypeError, match="LazyConfig.*CfgNode.*Trainer"):
        LazyTrainer(get_cfg())
    cfg = toy_config()
    cfg.train.best_metrics = "bbox/AP"
    with pytest.raises(
        ValueError, match=r"train.best_metrics, .* did you mean train.best_metric\?"
    ):
        LazyTrainer(cfg)
    for key in ("log_period", "checkpointer.period", "checkpointer.max_to_keep"):
        with pytest.raises(ValueError, match=f"train.{key} is 0; expected an integer, at least 1"):
            LazyTrainer(toy_config(f"train.{key}=0"))
    with pytest.raises(ValueError, match="--resume is among the overrides; flags stand before"):
        toy_config("--resume")
    cfg = toy_config("+train.note=mine")
    LazyTrainer(cfg)
    del cfg["lr_multiplier"]
    with pytest.raises(ValueError, match="no 'lr_multiplier'"):
        LazyTrainer(cfg)


def test_auto_scale_workers(toy_config):
    cfg = toy_config(
        "+train.reference_world_size=2",
        "dataloader.train.total_batch_size=8",
        "train.max_iter=100",
        "train.eval_period=10",
    )
    assert LazyTrainer.auto_scale_workers(cfg, 2) is cfg
    half = LazyTrainer.auto_scale_workers(cfg, 1)
    assert half.dataloader.train.total_batch_size == 4
    assert half.optimizer.lr == pytest.approx(0.05)
    assert (half.train.max_iter, half.train.eval_period) == (200, 20)
    assert half.train.checkpointer.period == 6
    assert cfg.train.max_iter == 100
    # The steps follow: halfway through the first value still holds, near the end the second.
    multiplier = instantiate(half.lr_multiplier)
    assert (multiplier(0.6), multiplier(0.7)) == (1.0, 0.1)
    trainer = LazyTrainer(cfg)  # one worker here
    assert trainer.max_iter == 200
    assert trainer.optimizer.defaults["lr"] == pytest.approx(0.05)
    cfg.train.eval_period = cfg.train.checkpointer.period = "${train.max_iter}"
    half = LazyTrainer.auto_scale_workers(cfg, 1)
    assert half.train.eval_period == half.train.checkpointer.period == half.train.max_iter == 200
    cfg.dataloader.train.total_batch_size = 3
    with pytest.raises(ValueError, match="total_batch_size=3 is no multiple"):
        LazyTrainer.auto_scale_workers(cfg, 1)


def test_evaluate_loads_strictly_and_adds_to_the_metrics(toy_config, tmp_path):
    with pytest.raises(ValueError, match="no weights to evaluate"):
        LazyTrainer.evaluate(toy_config())
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        LazyTrainer.evaluate(toy_config("train.init_checkpoint=nowhere.pth"))
    LazyTrainer(toy_config()).train()
    count = len(records(tmp_path / "output"))
    results = LazyTrainer.evaluate(toy_config(), resume=True)
    assert results["bbox"]["AP"] == 50.0
    lines = records(tmp_path / "output")
    assert len(lines) == count + 1
    assert lines[-1] == {"bbox/AP": 50.0, "bbox/images": 2.0, "iteration": 5}

    path = f"train.init_checkpoint={tmp_path}/output/model_final.pth"
    assert LazyTrainer.evaluate(toy_config(path)) == results
    with pytest.raises(
        ValueError, match=r"fast is for the detectors of gfocal; the config's model is a "
    ):
        LazyTrainer.evaluate(toy_config(path), fast=True)

    class Fast(LazyTrainer):
        @classmethod
        def build_model(cls, cfg):
            model = super().build_model(cfg)
            model.networks = lambda: (model.linear,)
            model.cast_networks = lambda dtype: casts.append(dtype)
            return model

    casts = []
    assert Fast.evaluate(toy_config(path), fast=True) == results
    assert casts == [fast_dtype("cpu")] * (fast_dtype("cpu") is not None)
    with pytest.raises(ValueError, match=r"linear.weight: \(6, 192\) in the file, \(7, 192\)"):
        LazyTrainer.evaluate(toy_config(path, "data.num_classes=3"))


def test_another_class_can_load_the_initial_weights(toy_config, tmp_path):
    class Halved(DetectionCheckpointer):
        def _load_file(self, filename):
            weights = super()._load_file(filename)["model"]
            return {"model": {name: value / 2 for name, value in weights.items()}}

    class Mine(LazyTrainer):
        initial_checkpointer = Halved

    first = LazyTrainer(toy_config("train.max_iter=1"))
    first.train()
    mine = Mine(toy_config(f"train.init_checkpoint={tmp_path}/output/model_final.pth"))
    mine.resume_or_load(resume=False)
    assert torch.equal(mine.model.linear.weight, first.model.linear.weight / 2)
    mine.train()
    resumed = Mine(toy_config())
    resumed.resume_or_load(resume=True)  # all of a checkpoint, as it is
    assert torch.equal(resumed.model.linear.weight, mine.model.linear.weight)


@pytest.mark.parametrize("which", ["train", "test"])
def test_the_trainer_looks_before_the_first_iteration(toy_config, monkeypatch, which):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    cfg = toy_config()
    cfg.dataloader[which].mapper.augmentations.append(
        {"_target_": "detectron2.data.transforms.RandomRotation", "angle": [0]}
    )
    with pytest.raises(ValueError, match="RandomRotation needs the package cv2"):
        LazyTrainer(cfg)


def test_the_trainer_warns(toy_config, caplog, monkeypatch):
    monkeypatch.setattr(probes, "_MAX_SECONDS", math.inf)  # the first image may be a quiet one
    cfg = toy_config()
    cfg.dataloader.train.mapper.augmentations.append({"_target_": "tests.data.test_probes.Hidden"})
    with caplog.at_level(logging.WARNING):
        LazyTrainer(cfg)
    assert "gives other images for the same random states" in caplog.text
