"""Checkpoints that survive a kill, and hold all that an exact resume needs."""

import contextlib
import io
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
import torch
from detectron2.engine import hooks
from detectron2.utils import comm

from ..weights.checkpointers import StrictCheckpointer
from ..weights.description import KEY
from ..weights.reading import load_weights_only
from .resume import RandomStates

__all__ = ["CheckpointHook", "TrainingCheckpointer", "plain"]


class TrainingCheckpointer(StrictCheckpointer):
    """A StrictCheckpointer that never leaves a half-written file under a checkpoint's name.

    Attributes:
        describe: called with the iteration of a checkpoint, and whether the weights are averaged;
            answers the description that the file gets. None: it gets none.
    """

    describe: Callable[[int, bool], dict[str, Any]] | None = None

    def save(self, name: str, **kwargs: Any) -> None:
        """Writes model, checkpointables and ``kwargs`` to NAME.pth, and the name of that file to
        last_checkpoint."""
        if not self.save_dir or not self.save_to_disk:
            return
        if "://" in self.save_dir:  # no rename there
            super().save(name, **self._described(kwargs))
            return
        data = {"model": self.model.state_dict()}
        data.update({key: value.state_dict() for key, value in self.checkpointables.items()})
        self.write(name, {**data, **_for_plain_loops(data), **kwargs})
        self.tag_last_checkpoint(f"{name}.pth")

    def write(self, name: str, data: dict[str, Any], *, averaged: bool = False) -> None:
        """Writes NAME.pth, without making it the last checkpoint.

        Args:
            name: without the ending.
            data: model, iteration and so on.
            averaged: the weights are those of :class:`gfocal.engine.ema.EMAHook`.
        """
        path = os.path.join(self.save_dir, f"{name}.pth")
        data = self._described(data, averaged)
        try:
            data = plain(data, name)
        except TypeError as error:  # the weights are worth keeping
            self.logger.error(f"This checkpoint cannot be resumed: {error}")
        self.logger.info(f"Saving checkpoint to {path}")
        with self._replaced(path) as file:
            torch.save(data, file)

    def describe_again(self, name: str, iteration: int) -> None:
        """Renews the description in NAME.pth, which was written before the evaluation of its
        weights. The rest of the file stays."""
        path = os.path.join(self.save_dir, f"{name}.pth")
        if self.describe is None or not os.path.isfile(path):
            return
        try:
            data = load_weights_only(path)
        except ValueError:  # of states that no checkpoint can have, which was said
            return
        description = self.describe(iteration, False)
        if data.get("iteration") == iteration and data.get(KEY) != description:
            with self._replaced(path) as file:
                torch.save({**data, KEY: description}, file)

    def _described(self, data: dict[str, Any], averaged: bool = False) -> dict[str, Any]:
        if self.describe is None:
            return data
        return {**data, KEY: self.describe(data.get("iteration", -1), averaged)}

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with self._replaced(os.path.join(self.save_dir, "last_checkpoint")) as file:
            file.write(last_filename_basename.encode())

    def warn_of_checkpoints_not_resumed(self) -> None:
        """Warns of a resume without last_checkpoint: it starts at 0 and may replace files."""
        folder = self.save_dir
        names = os.listdir(folder) if "://" not in folder and os.path.isdir(folder) else []
        if found := sorted(name for name in names if name.endswith(".pth")):
            self.logger.warning(
                f"{folder} has no last_checkpoint to resume from, so this training starts anew and "
                f"may replace {', '.join(found)}. To resume, write one's name into last_checkpoint"
            )

    def forget_last_checkpoint(self) -> None:
        """Renames last_checkpoint to last_checkpoint.old, for a new training in the folder of
        another. If it is resumed before its first checkpoint, it must not continue the other."""
        path = os.path.join(self.save_dir, "last_checkpoint")
        if "://" not in path and os.path.isfile(path):
            os.replace(path, f"{path}.old")
            self.logger.warning(
                f"{self.save_dir} has checkpoints of an earlier training, which this one does not "
                "resume and may replace. The name of the last one is now in last_checkpoint.old"
            )

    @contextlib.contextmanager
    def _replaced(self, path: str) -> Iterator[IO[bytes]]:
        """A file that takes its name when it is whole and on the disk."""
        if "://" in path:
            with self.path_manager.open(path, "wb") as file:
                yield file
            return
        # One name for all files: a kill leaves only one such file, and the next save replaces it.
        part = os.path.join(self.save_dir, "checkpoint.part")
        try:
            with open(part, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(part)
            raise


class CheckpointHook(hooks.PeriodicCheckpointer):
    """Detectron2's PeriodicCheckpointer, with the random states of all processes. So all processes
    have this hook, and the main process writes.

    After a resume the files of the run before count for ``max_to_keep``; the oldest beyond it are
    removed.

    Args:
        checkpointer: writes the files.
        random_states: the checkpointed trainer saves them.
        options: of PeriodicCheckpointer: ``period``, ``max_to_keep``, ``file_prefix``.
    """

    def __init__(
        self, checkpointer: TrainingCheckpointer, random_states: RandomStates, **options: Any
    ):
        super().__init__(checkpointer, **options)
        self._random_states = random_states

    def before_train(self) -> None:
        super().before_train()
        folder = self.checkpointer.save_dir
        if self.trainer.start_iter > 0 and comm.is_main_process() and "://" not in folder:
            pattern = re.compile(rf"{self.file_prefix}_(\d+)\.pth")
            found = [x for x in map(pattern.fullmatch, os.listdir(folder)) if x]
            earlier = sorted((int(x[1]), x[0]) for x in found)
            self.recent_checkpoints = [
                os.path.join(folder, name)
                for iteration, name in earlier
                if iteration < self.trainer.start_iter
            ]
            while self.max_to_keep and len(self.recent_checkpoints) > self.max_to_keep:
                os.remove(self.recent_checkpoints.pop(0))

    def after_step(self) -> None:
        iteration = self.trainer.iter
        if (iteration + 1) % self.period == 0 or iteration >= self.max_iter - 1:
            with self._random_states.gathered():
                if comm.is_main_process():
                    self.step(iteration)

    def save_final(self, iteration: int) -> None:
        """Writes model_final.pth, for a training that ends early. All processes must call it."""
        with self._random_states.gathered():
            if comm.is_main_process():
                self.checkpointer.save(f"{self.file_prefix}_final", iteration=iteration)

    def final_is_last(self) -> bool:
        """Whether last_checkpoint names model_final.pth."""
        last = self.checkpointer.get_checkpoint_file()
        return os.path.basename(last) == f"{self.file_prefix}_final.pth"


def _for_plain_loops(data: dict[str, Any]) -> dict[str, Any]:
    """Optimizer and schedule of a checkpoint's trainer, where a loop without one looks for them, as
    Detectron2's tools/plain_train_net.py does. They are the same tensors: a file has them once."""
    trainer = data.get("trainer", {})
    found = (trainer.get("optimizer"), trainer.get("hooks", {}).get("LRScheduler"))
    return {name: x for name, x in zip(("optimizer", "scheduler"), found) if x is not None}


def plain(value: Any, name: str) -> Any:
    """Returns a value in a form that is read without running code: NumPy's numbers become Python's,
    in dicts, lists and tuples too.

    Args:
        value: of any type.
        name: for the error.

    Raises:
        TypeError: a value of a type that a checkpoint cannot hold.
    """
    if isinstance(value, np.generic):
        return value.item()
    if value is None or type(value) in (torch.Tensor, str, bool, int, float):
        return value
    if type(value) in (dict, OrderedDict):
        new = {plain(key, name): plain(x, f"{name}.{key}") for key, x in value.items()}
        same = all(a is b and value[a] is new[b] for a, b in zip(value, new))
        return value if same else new
    if type(value) in (list, tuple):
        return type(value)(plain(x, f"{name}.{index}") for index, x in enumerate(value))
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except (AttributeError, TypeError, RuntimeError, pickle.PickleError) as error:
        raise TypeError(
            f"{name} is of type {type(value).__name__}; expected tensors, numbers, strings, and "
            "dicts, lists and tuples of them, which are read without running code"
        ) from error
    return value
