"""The contracts of a detector's parts, for the author of a new part. They are types; no class
derives from them.

The contracts of box representations are in representations.py. The tuples that the parts exchange
are in structures.py.
"""

from collections.abc import Sequence
from typing import Protocol

from detectron2.structures import Instances
from torch import Tensor

from .representations import BoxRepresentation
from .structures import DenseAnchors, DensePredictions, GroundTruth, LossInputs, Matches

__all__ = ["Head", "LossTerm", "Matcher", "Measure", "PostProcess"]


class Head(Protocol):
    """A module that predicts at every location of ``num_levels`` feature maps.

    Attributes:
        num_classes: K.
        num_levels: number of feature maps.
        box_representation: how the box channels are read.
    """

    num_classes: int
    num_levels: int
    box_representation: BoxRepresentation

    def __call__(self, features: Sequence[Tensor]) -> DensePredictions:
        """``num_levels`` maps (N, F, H, W), finest first -> predictions of all locations."""


class Matcher(Protocol):
    """Which locations are positive for which box; see matchers."""

    def __call__(
        self, anchors: DenseAnchors, truth: GroundTruth, predictions: DensePredictions
    ) -> Matches:
        """``predictions`` are detached. They share their numbers with the head's: do not change
        them in place."""


class LossTerm(Protocol):
    """A loss, weighted and normalised; see terms.py."""

    def __call__(self, inputs: LossInputs) -> Tensor:
        """-> ()"""


class Measure(Protocol):
    """How good each foreground box is, or the weight of each; see quality.py."""

    def __call__(self, inputs: LossInputs) -> Tensor:
        """-> (M,), detached"""


class PostProcess(Protocol):
    """From predictions to detections; see postprocess.py."""

    def __call__(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """``image_sizes`` are of the first images, (height, width) without padding, pixels."""
