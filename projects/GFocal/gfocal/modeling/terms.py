"""Loss terms: one class a term, one call signature.

A term is a module ``forward(inputs: LossInputs) -> scalar``, already weighted and normalised. A
term of your own is passed in the same way: no code asks for the class of a term. If a term needs
something of the head, its ``check_head(head)`` may raise; it is called when the detector is built.

Reference: Generalized Focal Loss (https://arxiv.org/abs/2006.04388), Sec. 3.
"""

from typing import Any, cast

import torch
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    gaussian_nll_loss,
    smooth_l1_loss,
)

from .contracts import Head, Measure
from .losses import distribution_focal_loss, generalized_iou_loss
from .quality import NoQuality, localization_iou, measured
from .representations import BinnedRepresentation
from .score_losses import sparse_score_loss
from .score_maps import QualityFocal, ScoreMaps, score_maps
from .settings import IOU, NOT_NEGATIVE, check_setting, check_settings
from .structures import LossInputs

__all__ = [
    "DistributionFocalLoss",
    "FocalLoss",
    "GIoULoss",
    "GaussianNLLLoss",
    "LogSmoothL1Loss",
    "QualityBranchLoss",
    "QualityFocalLoss",
    "ScoreLoss",
]


class ScoreLoss(nn.Module):
    """A loss of the joint score over all locations and classes: weight * BCE(score, label). What is
    label and weight, a member of the family of score_maps.py says.

    Args:
        maps: a name in ``SCORE_MAPS`` ("focal", "qfl", "vfl", "mal", "ia_bce"), or a
            :class:`ScoreMaps`, e.g. ``Varifocal(alpha=0.5)``.
        weight: multiplies the loss.
        measure: a measure of quality.py, the quality of a foreground location at its class: in the
            papers the IoU of predicted and true box, with ``matched_quality`` the matcher's soft
            label.

    Raises:
        ValueError: for an unknown name, maps that are none, or a negative ``weight``.
    """

    def __init__(
        self,
        *,
        maps: ScoreMaps | str,
        weight: float = 1.0,
        measure: Measure = localization_iou,
    ):
        super().__init__()
        check_settings(NOT_NEGATIVE, weight=weight)
        self.maps = score_maps(maps)
        self.weight = weight
        self.measure = measure

    def forward(self, inputs: LossInputs) -> Tensor:
        quality_logits = inputs.predictions.quality_logits
        return sparse_score_loss(
            inputs.predictions.cls_logits.flatten(0, 1),
            None if quality_logits is None else quality_logits.flatten(0, 1),
            (inputs.fg_rows, inputs.fg_labels),
            measured(self.measure, inputs),
            valid=(inputs.targets.labels >= 0).flatten(),
            maps=self.maps,
            scale=self.weight / inputs.num_foreground,
        )


class QualityFocalLoss(ScoreLoss):
    """QFL over all locations and classes (Eq. 2): the score loss "qfl".

    Args:
        beta: exponent of the modulating factor; 0 or at least 1.
        weight, measure: as of :class:`ScoreLoss`.

    Raises:
        ValueError: if ``beta`` is another number.
    """

    def __init__(
        self, *, beta: float = 2.0, weight: float = 1.0, measure: Measure = localization_iou
    ):
        super().__init__(maps=QualityFocal(beta), weight=weight, measure=measure)

    @property
    def beta(self) -> float:
        return cast("QualityFocal", self.maps).beta


class FocalLoss(nn.Module):
    """Focal loss (https://arxiv.org/abs/1708.02002) of the class scores, labels 0 and 1.

    It trains the class alone. :class:`QualityBranchLoss` trains a separate quality.

    Args:
        alpha, gamma: of focal loss; alpha -1 weights positives and negatives alike.
        weight: multiplies the loss.
        positive_weight: a measure (quality.py). It weights the loss of each positive at its class:
            "centerness-guided" or "IoU-guided" in Table 1a. None for no weighting.

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        weight: float = 1.0,
        positive_weight: Measure | None = None,
    ):
        super().__init__()
        check_settings(NOT_NEGATIVE, gamma=gamma, weight=weight)
        if alpha != -1:
            check_setting("alpha", alpha, IOU)
        self.alpha = alpha
        self.gamma = gamma
        self.weight = weight
        self.positive_weight = positive_weight

    def forward(self, inputs: LossInputs) -> Tensor:
        logits = inputs.predictions.cls_logits
        targets = torch.zeros_like(logits)
        positives = (*inputs.fg_idxs, inputs.fg_labels)
        targets[positives] = 1.0
        loss = sigmoid_focal_loss(logits, targets, alpha=self.alpha, gamma=self.gamma)
        if self.positive_weight is not None:
            factors = torch.ones_like(loss)
            factors[positives] = measured(self.positive_weight, inputs).to(loss.dtype)
            loss = loss * factors
        loss = (loss.sum(dim=-1) * (inputs.targets.labels >= 0)).sum()
        return self.weight * loss / inputs.num_foreground


class QualityBranchLoss(nn.Module):
    """Binary cross entropy of a quality branch on the foreground, as FCOS trains its centerness.

    Args:
        measure: the label of the branch, ``centerness`` or ``localization_iou``.
        weight: multiplies the loss.
    """

    def __init__(self, *, measure: Measure, weight: float = 1.0):
        super().__init__()
        check_settings(NOT_NEGATIVE, weight=weight)
        self.measure = measure
        self.weight = weight

    _NOTHING = (
        "QualityBranchLoss has no quality to train; give the head a quality_predictor, "
        "e.g. QualityBranch"
    )

    def check_head(self, head: Head) -> None:
        """Raises ValueError if the head has no quality predictor."""
        has_none = isinstance(getattr(head, "quality_predictor", None), NoQuality)
        if has_none:
            raise ValueError(self._NOTHING)

    def forward(self, inputs: LossInputs) -> Tensor:
        """Raises ValueError if the predictions have no quality."""
        if inputs.predictions.quality_logits is None:
            raise ValueError(self._NOTHING)
        logits = inputs.predictions.quality_logits[inputs.fg_idxs].squeeze(-1)
        labels = measured(self.measure, inputs)
        loss = binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return self.weight * loss / inputs.num_foreground


class GIoULoss(nn.Module):
    """Generalized IoU loss (https://arxiv.org/abs/1902.09630) of the foreground boxes.

    Args:
        weight: multiplies the loss, 2 in the paper.
    """

    def __init__(self, *, weight: float = 2.0):
        super().__init__()
        check_settings(NOT_NEGATIVE, weight=weight)
        self.weight = weight

    def forward(self, inputs: LossInputs) -> Tensor:
        loss = generalized_iou_loss(inputs.fg_boxes, inputs.fg_target_boxes)
        return self.weight * inputs.weighted_mean(loss)


class DistributionFocalLoss(nn.Module):
    """DFL of the foreground's four sides (Eq. 6), averaged over them.

    Targets are clipped to [0, C - 1 - 0.1] bins (C - 1 is the paper's n), as in the official code.
    The bins cannot express a side beyond that, and a target needs a bin on its right.

    Args:
        weight: multiplies the loss, 0.25 in the paper.
    """

    def __init__(self, *, weight: float = 0.25):
        super().__init__()
        check_settings(NOT_NEGATIVE, weight=weight)
        self.weight = weight

    def check_head(self, head: Head) -> None:
        """Raises ValueError if the head's boxes are not read from increasing bins, a channel
        each."""
        for method in ("to_bins", "bins"):
            _check_can(head, method, self, "GeneralDistribution")
        representation = cast("BinnedRepresentation", head.box_representation)
        bins = representation.bins
        if bins.device.type == "meta":
            return  # no numbers to look at
        if len(bins) != representation.num_channels or not (bins.diff() > 0).all():
            raise ValueError(
                f"{type(representation).__name__} has bins {bins.tolist()} and "
                f"{representation.num_channels} channels; expected as many increasing bins"
            )

    def forward(self, inputs: LossInputs) -> Tensor:
        representation = cast("BinnedRepresentation", inputs.predictions.box_representation)
        targets = representation.to_bins(inputs.fg_target_distances)
        targets = targets.clamp(min=0, max=inputs.fg_box_logits.shape[-1] - 1 - 0.1)
        loss = distribution_focal_loss(inputs.fg_box_logits.flatten(0, 1), targets.flatten())
        loss = loss.view_as(targets).mean(dim=1)
        return self.weight * inputs.weighted_mean(loss)


class GaussianNLLLoss(nn.Module):
    """Negative log-likelihood of the true distances under :class:`GaussianDistance`, averaged over
    the four sides, in strides (without the constant ln(2 pi) / 2).

    Args:
        weight: multiplies the loss.
    """

    def __init__(self, *, weight: float = 0.25):
        super().__init__()
        check_settings(NOT_NEGATIVE, weight=weight)
        self.weight = weight

    def check_head(self, head: Head) -> None:
        """Raises ValueError if the head's boxes have no standard deviation."""
        _check_can(head, "std", self, "GaussianDistance")

    def forward(self, inputs: LossInputs) -> Tensor:
        std = cast("Any", inputs.predictions.box_representation).std(inputs.fg_box_logits)
        loss = gaussian_nll_loss(
            inputs.fg_distances, inputs.fg_target_distances, std.square(), reduction="none"
        )
        return self.weight * inputs.weighted_mean(loss.mean(dim=1))


class LogSmoothL1Loss(nn.Module):
    """Smooth L1 of the logarithms of the foreground's four sides, summed over them: FoveaBox
    (https://arxiv.org/abs/1904.03797).

    Targets are clipped to 1 / 16 and 16 units of :class:`LogDistance`, as in the published code.

    Args:
        beta: errors below it are squared.
        weight: multiplies the loss.

    Raises:
        ValueError: if ``beta`` is negative.
    """

    _LIMIT = 16.0

    def __init__(self, *, beta: float = 0.11, weight: float = 1.0):
        super().__init__()
        check_settings(NOT_NEGATIVE, beta=beta, weight=weight)
        self.beta = beta
        self.weight = weight

    def check_head(self, head: Head) -> None:
        """Raises ValueError if the head's boxes are not read from logarithms of distances."""
        for method in ("to_logits", "unit"):
            _check_can(head, method, self, "LogDistance")

    def forward(self, inputs: LossInputs) -> Tensor:
        representation = cast("Any", inputs.predictions.box_representation)
        unit = representation.unit
        targets = inputs.fg_target_distances.clamp(min=unit / self._LIMIT, max=unit * self._LIMIT)
        loss = smooth_l1_loss(
            inputs.fg_box_logits[..., 0],
            representation.to_logits(targets),
            reduction="none",
            beta=self.beta,
        )
        return self.weight * inputs.weighted_mean(loss.sum(dim=1))


def _check_can(head: Head, method: str, term: nn.Module, example: str) -> None:
    if not hasattr(head.box_representation, method):
        raise ValueError(
            f"{type(term).__name__} needs a box representation with {method}, which "
            f"{type(head.box_representation).__name__} does not have; expected e.g. {example}"
        )
