"""Detections with the distributions of their sides."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.structures import Instances

from ..modeling.detector import Detector

__all__ = ["detect_with_distributions", "with_distributions"]


@torch.no_grad()
def detect_with_distributions(
    model: Detector, batched_inputs: list[dict[str, Any]]
) -> list[dict[str, Instances]]:
    """Detects, and keeps the distributions of the four sides of every detection.

    Args:
        model: a GFL in eval mode whose box representation has `probabilities` and `bins`.
        batched_inputs: as for the model.

    Returns:
        one {"instances"} an image, as the model's own output, with two more fields,
        `pred_box_distributions` and `bin_edges`: see :mod:`gfocal.modeling.sides`.

    Raises:
        ValueError: the model is in training mode.
        TypeError: the model's box representation has no distributions, or its post-processing
            gives none.
    """
    if model.training:
        raise ValueError("detect_with_distributions needs a model in eval mode: call model.eval()")
    representation = getattr(model, "box_representation", None)
    if not hasattr(representation, "probabilities"):
        kind = "" if representation is None else f" with {type(representation).__name__}"
        raise TypeError(
            f"a {type(model).__name__}{kind} has no distributions; a GeneralDistribution has "
            "(docs/detectors.md: DFL)"
        )
    with with_distributions(model):
        return model(batched_inputs)


@contextlib.contextmanager
def with_distributions(model: Any) -> Iterator[None]:
    """Inside it, the detections of a model have their distributions.

    Args:
        model: a detector with an :class:`gfocal.modeling.postprocess.NMSPostProcess`.

    Raises:
        TypeError: its post-processing is another.
    """
    part: Any = getattr(model, "postprocess", None)
    if not hasattr(part, "distributions"):
        raise TypeError(
            f"the postprocess of a {type(model).__name__} is a {type(part).__name__}, which gives "
            "no distributions; expected an NMSPostProcess"
        )
    before, part.distributions = part.distributions, True
    try:
        yield
    finally:
        part.distributions = before
