"""Teachers of a distillation: a trained model from a config and a file, or the student's own
averaged weights.

A teacher is no part of the student. So it is in no checkpoint, no optimizer and no copy, and only a
training needs its file.
"""

import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.modeling import build_model
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..config import load_config, model_zoo, without_pretraining
from ..process.builders import built_here
from ..process.rng import preserved_rng
from ..weights.checkpointers import StrictCheckpointer, check_weights
from ..weights.description import find_config, read_description
from .classes import warn_if_others

__all__ = ["EMATeacher", "FrozenTeacher"]


class _Outside:
    """What the student's copies share, and what pickles leave out."""

    def __deepcopy__(self, memo: dict[int, Any]):
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {k: None if k.startswith("_") else x for k, x in vars(self).items()}


class FrozenTeacher(_Outside):
    """A trained model, which does not change. It is loaded before a training, or at the first step.

    Args:
        weights: a file that gfocal's checkpointers read: a checkpoint, or an official model after
            ``gfocal convert``.
        config: of the model: a name of the zoo, or a file (.py, .yaml). Or a config: a LazyConfig,
            a yacs config, or ``dict(model=L(GFL)(...))``. None: the weights carry it, as those of a
            gfocal training do.
    """

    def __init__(self, weights: str, config: str | Mapping | CfgNode | None = None):
        if not isinstance(config, (str, Mapping, CfgNode, type(None))):
            raise TypeError(
                f"the teacher's config is a {type(config).__name__}; expected a name, a file or a "
                "config. A LazyCall goes into dict(model=...), else it is built with the student"
            )
        self.weights, self.config = weights, config
        self._model: nn.Module | None = None

    def __repr__(self) -> str:
        named = f", config={self.config!r}" if isinstance(self.config, str) else ""
        return f"{type(self).__name__}(weights={self.weights!r}{named})"

    def prepare(
        self, student: nn.Module, average: Any = None, class_names: Sequence[str] = ()
    ) -> None:
        """Loads the teacher. Warns if its weights say that its classes have other names.

        Raises:
            FileNotFoundError: the weights or the config are not there.
            ValueError: the weights are not those of the config, or the student cannot learn from
                this teacher.
        """
        self(student)
        if class_names:
            description = read_description(os.fspath(self.weights))
            warn_if_others(description, str(self.weights), "the student", None, class_names)

    def __call__(self, student: nn.Module) -> nn.Module:
        """The teacher, on the device of the student and in its memory format."""
        if self._model is None:
            self._model = self._loaded(student)
        device = next(student.parameters()).device
        if next(self._model.parameters()).device != device:
            self._model.to(device)
        return self._model

    def _loaded(self, student: Any) -> nn.Module:
        try:
            weights = check_weights(os.fspath(self.weights or ""))
            if not weights:
                raise FileNotFoundError("no weight file is given")
            with preserved_rng():  # the initial weights are replaced, and cost no random number
                model = _built(self.config, weights)
            StrictCheckpointer(model).load(weights)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"the teacher: {error}; a student learns from a trained model, whose file is in "
                "model.teacher.weights (MODEL.DISTILLATION.WEIGHTS)"
            ) from error
        student.check_teacher(model)
        model.eval().requires_grad_(False)
        if _is_channels_last(student):
            model = model.to(memory_format=torch.channels_last)
        return model.to(next(student.parameters()).device)


class EMATeacher(_Outside):
    """The student's own averaged weights (:class:`gfocal.engine.ema.EMAHook`, ``train.ema_decay``).

    Args:
        start_iter: steps of the average before it teaches; until then the losses of the teacher
            are 0. At the start the average is the student itself, and there is nothing to learn.

    Raises:
        ValueError: ``start_iter`` is negative.
    """

    def __init__(self, start_iter: int = 0):
        if start_iter < 0:
            raise ValueError(f"start_iter is {start_iter}; expected a number of steps")
        self.start_iter = start_iter
        self._average: Any = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(start_iter={self.start_iter})"

    def prepare(self, student: nn.Module, average: Any, class_names: Sequence[str] = ()) -> None:
        """
        Raises:
            ValueError: the training has no averaged weights.
        """
        if average is None:
            raise ValueError(
                "the EMATeacher is the average of the student's weights, and train.ema_decay "
                "(SOLVER.EMA_DECAY) is 0; expected a number below 1, e.g. 0.999"
            )
        average.same_everywhere()
        self._average = weakref.ref(average)

    def __call__(self, student: nn.Module) -> nn.Module | None:
        """The average; None before ``start_iter``.

        Raises:
            ValueError: there is no such training: another tool's loop runs.
        """
        average = self._average and self._average()
        if average is None:
            raise ValueError(
                "the EMATeacher has no averaged weights; expected a training by gfocal's trainers, "
                "with train.ema_decay (SOLVER.EMA_DECAY)"
            )
        return average.model.eval() if average.steps >= self.start_iter else None


def _built(config: Any, weights: str) -> nn.Module:
    """A model, on the CPU."""
    if isinstance(config, str):
        config = load_config(model_zoo.find_config(config))
    elif config is None:
        config, _ = find_config(None, weights)
    if isinstance(config, CfgNode):
        config = config.clone()
        config.defrost()
        config.MODEL.DEVICE = "cpu"
        with built_here():
            return build_model(config)
    if not isinstance(config, DictConfig):
        config = OmegaConf.create(dict(config), flags={"allow_objects": True})
    if "model" not in config:
        raise ValueError(f"the teacher's config has {list(config)}; expected a model among them")
    return instantiate(without_pretraining(config.model))


def _is_channels_last(model: nn.Module) -> bool:
    kernels = (x for x in model.parameters() if x.dim() == 4 and not x.is_contiguous())
    return any(x.is_contiguous(memory_format=torch.channels_last) for x in kernels)
