"""Observers of training steps: they look at a step and write into the event storage.

An observer is called as ``observer(core, step)`` after the losses of a step, with the
:class:`gfocal.modeling.dense.DenseCore` and its ``DenseStep``, or with another
:class:`gfocal.modeling.detector.Detector` and its ``TrainingStep``. It changes nothing. A
validation loss is computed by a copy of the model, so an observer must be copyable; it is called
there too, with an event storage of its own that is thrown away.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import locate

from .structures import GroundTruth

__all__ = ["TrainingPictures", "TrainingStep", "is_due"]


class TrainingStep(NamedTuple):
    """A training step, as an observer sees it.

    Attributes:
        outputs: what the detector's ``predict`` answered, detached.
        truth: of the batch.
        batched_inputs: the data loader's dicts.
    """

    outputs: tuple[Any, ...]
    truth: GroundTruth
    batched_inputs: Sequence[Mapping[str, Any]] = ()

    def first(self) -> tuple[Any, ...]:
        """What the detector's ``inference`` takes of the first image."""
        return tuple(x.first() if hasattr(x, "first") else x for x in self.outputs)


def is_due(period: int) -> bool:
    """Whether an observer looks at this iteration: one in ``period``, none if it is 0. Outside of a
    training the answer is False."""
    try:
        return period > 0 and get_event_storage().iter % period == 0
    except AssertionError:  # there is no storage
        return False


class TrainingPictures:
    """Draws the first image of a batch, with ground truth and detections, once in ``period``.

    Args:
        period: iterations between pictures; 0 for none.
        draw: ``(inputs, detections, input_format)`` -> (H, W, 3) uint8 RGB, or the dotted name of
            such a function. A detector does not import drawing code by itself.
        input_format: order of the image's channels, "RGB" or "BGR".
    """

    def __init__(self, period: int, draw: Callable[..., np.ndarray] | str, input_format: str):
        self.period = period
        self.draw = draw
        self.input_format = input_format

    @torch.no_grad()
    def __call__(self, core: Any, step: Any) -> None:
        if not is_due(self.period) or not step.batched_inputs:
            return
        inputs = step.batched_inputs[0]
        (result,) = core.inference(*step.first(), [inputs["image"].shape[-2:]])
        draw: Callable[..., Any] = locate(self.draw) if isinstance(self.draw, str) else self.draw
        picture = draw(inputs, result, self.input_format)
        get_event_storage().put_image(
            "ground truth (top), detections (bottom)", picture.transpose(2, 0, 1)
        )
