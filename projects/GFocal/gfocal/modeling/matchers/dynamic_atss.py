"""DDOD's matcher: ATSS, with what the detector predicts in place of the anchors' IoUs."""

from typing import cast

import torch
from torch import Tensor

from ..settings import IOU, check_setting
from ..structures import DenseAnchors, DensePredictions
from .atss import ATSSMatcher, Candidates
from .batch import Objects, predicted_scores_and_ious

__all__ = ["DynamicATSSMatcher"]


class DynamicATSSMatcher(ATSSMatcher):
    """ATSS with a dynamic cost (DDOD, https://arxiv.org/abs/2107.02963).

    The candidates of a box are those of ATSS. In place of their IoU stands s^(1 - alpha) * u^alpha.
    s is the joint score for the box's class, and u the IoU of the predicted box with the box. This
    decides which candidates are positive, and who gets a location of several boxes. It gives no
    quality. It waits for a GPU once.

    DDOD matches class and box apart, with alpha 0.8 and 0.5. Here one assignment serves both.

    Args:
        topk: as ATSS.
        alpha: share of the IoU, in [0, 1].

    Raises:
        ValueError: if ``topk`` is less than 1, or ``alpha`` is another number.
    """

    def __init__(self, topk: int = 9, alpha: float = 0.8):
        super().__init__(topk)
        check_setting("alpha", alpha, IOU)
        self.alpha = alpha

    def __repr__(self) -> str:
        return f"{type(self).__name__}(topk={self.topk}, alpha={self.alpha})"

    def _values(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions | None,
        objects: Objects,
        candidates: Candidates,
    ) -> Tensor:
        shape = candidates.idxs.shape
        scores, ious = predicted_scores_and_ious(
            anchors,
            cast("DensePredictions", predictions),
            objects,
            torch.arange(shape[0], device=objects.boxes.device).repeat_interleave(shape[1]),
            candidates.idxs.flatten(),
        )
        return (scores.double() ** (1 - self.alpha) * ious.double() ** self.alpha).view(shape)
