"""Checkpoints that go to and come from the training loops of Detectron2's tools/, which its
packages do not have: their calls, on one image, so that all batches are the same."""

import shutil
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.engine import SimpleTrainer, hooks
from detectron2.solver import LRMultiplier

from gfocal.engine import LazyTrainer
from gfocal.engine.resume import training_state


def lazyconfig_train_net(cfg, resume):
    """What tools/lazyconfig_train_net.py does, but for writers and evaluations."""
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), instantiate(cfg.optimizer))
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    start_iter = trainer.iter + 1 if resume and checkpointer.has_checkpoint() else 0
    trainer.train(start_iter, cfg.train.max_iter)


def plain_train_net(cfg):
    """What tools/plain_train_net.py does to resume and to train."""
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    scheduler = LRMultiplier(optimizer, instantiate(cfg.lr_multiplier), cfg.train.max_iter)
    checkpointer = DetectionCheckpointer(
        model, cfg.train.output_dir, optimizer=optimizer, scheduler=scheduler
    )
    start_iter = checkpointer.resume_or_load("", resume=True).get("iteration", -1) + 1
    loader = instantiate(cfg.dataloader.train)
    for data, iteration in zip(loader, range(start_iter, cfg.train.max_iter)):
        losses = sum(model(data).values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        scheduler.step()
    checkpointer.save("model_final", iteration=iteration)


@pytest.fixture
def half(toy_config, tmp_path: Path):
    """A config whose training is half done, by this package, and the weights at its end."""
    trainer = LazyTrainer(toy_config(f"train.output_dir={tmp_path}/whole"))
    trainer.train()
    cfg = toy_config(f"train.output_dir={tmp_path}/half")
    (tmp_path / "half").mkdir()
    shutil.copy(tmp_path / "whole/model_0000002.pth", tmp_path / "half")
    (tmp_path / "half/last_checkpoint").write_text("model_0000002.pth")
    return cfg, load(tmp_path / "whole/model_final.pth")


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_lazyconfig_train_net_goes_on(half, tmp_path):
    """With the momentum and the schedule: the second half changes both."""
    cfg, whole = half
    lazyconfig_train_net(cfg, resume=True)
    found = load(tmp_path / "half/model_final.pth")
    torch.testing.assert_close(found["model"], whole["model"])
    torch.testing.assert_close(found["trainer"]["optimizer"], whole["trainer"]["optimizer"])


def test_plain_train_net_goes_on(half, tmp_path):
    cfg, whole = half
    plain_train_net(cfg)
    found = load(tmp_path / "half/model_final.pth")
    torch.testing.assert_close(found["model"], whole["model"])
    assert found["scheduler"]["last_epoch"] == 6


@pytest.mark.parametrize("name", ["model_0000002", "model_final"])  # written once, and twice
def test_a_file_has_the_optimizer_once(half, tmp_path, name):
    path = tmp_path / f"whole/{name}.pth"
    checkpoint = load(path)
    trainer = checkpoint["trainer"]
    places = (trainer["_trainer"]["optimizer"], trainer["optimizer"], checkpoint["optimizer"])
    assert len({place["state"][0]["momentum_buffer"].data_ptr() for place in places}) == 1
    for key in ("optimizer", "scheduler"):
        del checkpoint[key]
    del trainer["optimizer"]
    torch.save(checkpoint, tmp_path / "without.pth")
    assert path.stat().st_size - (tmp_path / "without.pth").stat().st_size < 2000


def test_the_gradient_scaler_is_there_too():
    class Loop:
        data_loader = ()
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)

        def state_dict(self):
            return {"iteration": 3, "optimizer": {"a": 1}, "grad_scaler": {"scale": 2.0}}

    class States:
        def state(self):
            return None

    state = training_state(Loop(), States())
    assert state["grad_scaler"] is state["_trainer"]["grad_scaler"]
    assert "iteration" not in state  # of the trainer itself


def test_their_checkpoints_are_refused_here(toy_config, tmp_path):
    cfg = toy_config("train.max_iter=3")
    (tmp_path / "output").mkdir()
    lazyconfig_train_net(cfg, resume=False)
    with pytest.raises(ValueError, match=r"not written by gfocal's trainer.*train.init_checkpoint"):
        LazyTrainer(toy_config()).resume_or_load(resume=True)
    checkpoint = load(tmp_path / "output/model_final.pth")
    trainer = checkpoint.pop("trainer")
    checkpoint["optimizer"] = trainer["optimizer"]  # as plain_train_net.py leaves it
    torch.save(checkpoint, tmp_path / "output/model_final.pth")
    with pytest.raises(ValueError, match=r"no state of gfocal's trainer: .*loop of another tool"):
        LazyTrainer(toy_config()).resume_or_load(resume=True)
    # Their weights are a start.
    again = toy_config(
        f"train.init_checkpoint={tmp_path}/output/model_final.pth",
        f"train.output_dir={tmp_path}/new",
    )
    trainer = LazyTrainer(again)
    trainer.resume_or_load(resume=True)
    torch.testing.assert_close(dict(trainer.model.state_dict()), dict(checkpoint["model"]))


def test_a_checkpoint_from_before_these_keys_goes_on_exactly(half, tmp_path):
    cfg, whole = half
    path = tmp_path / "half/model_0000002.pth"
    checkpoint = load(path)
    del checkpoint["optimizer"], checkpoint["scheduler"], checkpoint["trainer"]["optimizer"]
    torch.save(checkpoint, path)
    trainer = LazyTrainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    found = load(tmp_path / "half/model_final.pth")
    assert found["model"].keys() == whole["model"].keys()
    assert all(torch.equal(found["model"][name], x) for name, x in whole["model"].items())
