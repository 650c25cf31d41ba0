"""metrics.json: one record an iteration."""

import json
import os

import pytest
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from gfocal.engine import LazyTrainer
from gfocal.engine.records import MetricsWriter


def iterations(path):
    return [json.loads(line)["iteration"] for line in path.read_text().splitlines()]


def written(path, *numbers):
    path.write_text("".join(json.dumps({"iteration": x, "loss": 1.0}) + "\n" for x in numbers))


def test_a_resume_drops_what_it_writes_again(tmp_path):
    path = tmp_path / "metrics.json"
    written(path, 0, 3, 7, 8, 11)
    path.write_text(path.read_text() + '{"iteration": 12, "lo')  # cut short by a kill
    with EventStorage() as storage:
        writer = MetricsWriter(str(path))
        writer.begin(8)
        assert iterations(path) == [0, 3, 7]
        for iteration in (3, 7, 8):  # the restored metrics of before, and a new one
            storage.iter = iteration
            storage.put_scalar(f"metric{iteration}", 2.0)
        writer.write()
        writer.close()
    assert iterations(path) == [0, 3, 7, 8]
    assert not (tmp_path / "metrics.json.part").exists()


def test_a_kill_while_records_are_dropped_leaves_all(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    written(path, 0, 3, 7)

    def killed(*args):
        raise KeyboardInterrupt

    for function in ("fsync", "replace"):
        writer = MetricsWriter(str(path))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, function, killed)
            writer.begin(4)
        assert iterations(path) == [0, 3, 7]


def test_a_new_training_sets_the_records_of_another_aside(tmp_path, caplog):
    path = tmp_path / "metrics.json"
    for number in ("", "2"):
        written(path, 0, 3)
        MetricsWriter(str(path)).begin(0)
        assert path.read_text() == ""
        assert iterations(tmp_path / f"metrics.json.old{number}") == [0, 3]
        assert f"They are now in {path}.old{number}" in caplog.text
    MetricsWriter(str(path)).begin(0)  # nothing to set aside
    assert len(list(tmp_path.iterdir())) == 3


class Killed(HookBase):
    def __init__(self, at):
        self.at = at

    def after_step(self):
        if self.trainer.iter == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("killed_at", [2, 3, 4, 5])  # before the first checkpoint, and later
def test_no_iteration_comes_twice(toy_config, tmp_path, killed_at):
    cfg = toy_config("train.log_period=1", "train.max_iter=8", "train.checkpointer.period=4")
    trainer = LazyTrainer(cfg)
    trainer.register_hooks([Killed(killed_at)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    again = LazyTrainer(cfg)
    again.resume_or_load(resume=True)
    again.train()
    assert iterations(tmp_path / "output/metrics.json") == [*range(9)]  # 8: the evaluation
    finished = LazyTrainer(cfg)
    finished.resume_or_load(resume=True)
    finished.train()
    assert iterations(tmp_path / "output/metrics.json") == [*range(9)]
