"""From predictions and targets to a dict of losses.

A loss *term* is a module with one signature, ``forward(inputs: LossInputs) -> scalar``; the
criterion gathers the foreground once and hands every term the same ``LossInputs``. Write another
term, or another ``box_weight``, and pass it in: nothing here asks which one it is.

Reference: Generalized Focal Loss (https://arxiv.org/abs/2006.04388), Sec. 3, Eq. 8.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, gaussian_nll_loss

from .box_distribution import at_least_float32, boxes_to_distances, distances_to_boxes
from .losses import (
    check_beta,
    distribution_focal_loss,
    generalized_iou_loss,
    sparse_quality_focal_loss,
)
from .process.sums import sum_over_workers
from .quality import localization_iou, max_class_score
from .structures import DenseAnchors, DensePredictions, DenseTargets

__all__ = [
    "DistributionFocalLoss",
    "FocalLoss",
    "GFLCriterion",
    "GIoULoss",
    "GaussianNLLLoss",
    "LossInputs",
    "QualityBranchLoss",
    "QualityFocalLoss",
]


class LossInputs(NamedTuple):
    """What every loss term sees. M foreground locations of the whole batch; see structures.py.

    Attributes:
        cls_logits: (N, R, K) class logits, at least float32.
        quality_logits: (N, R, 1) or None.
        labels: (N, R) as in DenseTargets.
        fg_idxs: (image (M,), location (M,)) of the foreground.
        fg_labels: (M,) its classes.
        fg_joint_logits: (M, K) logits of the class (and quality) score.
        fg_box_logits: (M, 4, C).
        fg_distances: (M, 4) predicted distances, strides.
        fg_boxes: (M, 4) predicted boxes, XYXY pixels; not clipped to the image.
        fg_target_distances: (M, 4) distances of the ground truth, strides; not clipped.
        fg_target_boxes: (M, 4) ground truth, XYXY pixels.
        box_weights: (M,) weight of each foreground box in the losses of boxes; detached.
        num_foreground: () what loss_cls is divided by.
        total_box_weight: () what the losses of boxes are divided by.
        box_representation: how the channels are read.
    """

    cls_logits: Tensor
    quality_logits: Tensor | None
    labels: Tensor
    fg_idxs: tuple
    fg_labels: Tensor
    fg_joint_logits: Tensor
    fg_box_logits: Tensor
    fg_distances: Tensor
    fg_boxes: Tensor
    fg_target_distances: Tensor
    fg_target_boxes: Tensor
    box_weights: Tensor
    num_foreground: Tensor
    total_box_weight: Tensor
    box_representation: nn.Module


class QualityFocalLoss(nn.Module):
    """QFL over all locations and classes; the label of a foreground location's class is the IoU of
    its predicted with its true box (Eq. 2).

    Args:
        beta: exponent of the modulating factor; 0 or at least 1.
        weight: multiplies the loss.

    Raises:
        ValueError: if ``beta`` is another number.
    """

    def __init__(self, *, beta: float = 2.0, weight: float = 1.0):
        super().__init__()
        check_beta(beta)
        self.beta = beta
        self.weight = weight

    def forward(self, inputs: LossInputs) -> Tensor:
        image_idxs, location_idxs = inputs.fg_idxs
        quality_logits = inputs.quality_logits
        return sparse_quality_focal_loss(
            inputs.cls_logits.flatten(0, 1),
            None if quality_logits is None else quality_logits.flatten(0, 1),
            (image_idxs * inputs.labels.shape[1] + location_idxs, inputs.fg_labels),
            localization_iou(inputs),
            valid=(inputs.labels >= 0).flatten(),
            beta=self.beta,
            scale=self.weight / inputs.num_foreground,
        )


class FocalLoss(nn.Module):
    """Focal loss (https://arxiv.org/abs/1708.02002) of the class scores, labels 0 and 1.

    Of the class alone: a separate quality is trained by :class:`QualityBranchLoss`.

    Args:
        alpha, gamma: of focal loss.
        weight: multiplies the loss.
        positive_weight: a measure (quality.py) that weights the loss of each positive at its class,
            "centerness-guided" or "IoU-guided" in Table 1a; None for no weighting.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        weight: float = 1.0,
        positive_weight: Callable[[LossInputs], Tensor] | None = None,
    ):
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.weight = weight
        self.positive_weight = positive_weight

    def forward(self, inputs: LossInputs) -> Tensor:
        targets = torch.zeros_like(inputs.cls_logits)
        positives = (*inputs.fg_idxs, inputs.fg_labels)
        targets[positives] = 1.0
        loss = sigmoid_focal_loss(inputs.cls_logits, targets, alpha=self.alpha, gamma=self.gamma)
        if self.positive_weight is not None:
            factors = torch.ones_like(loss)
            factors[positives] = self.positive_weight(inputs).to(loss.dtype)
            loss = loss * factors
        loss = (loss.sum(dim=-1) * (inputs.labels >= 0)).sum()
        return self.weight * loss / inputs.num_foreground


class QualityBranchLoss(nn.Module):
    """Binary cross entropy of a quality branch on the foreground, as FCOS trains its centerness.

    Args:
        measure: what the branch is to estimate, ``centerness`` or ``localization_iou``.
        weight: multiplies the loss.
    """

    def __init__(self, *, measure: Callable[[LossInputs], Tensor], weight: float = 1.0):
        super().__init__()
        self.measure = measure
        self.weight = weight

    def forward(self, inputs: LossInputs) -> Tensor:
        """Raises ValueError if the head has no quality predictor."""
        if inputs.quality_logits is None:
            raise ValueError(
                "QualityBranchLoss has no quality to train; give the head a quality_predictor, "
                "e.g. QualityBranch"
            )
        logits = inputs.quality_logits[inputs.fg_idxs].squeeze(-1)
        loss = binary_cross_entropy_with_logits(logits, self.measure(inputs), reduction="sum")
        return self.weight * loss / inputs.num_foreground


class GIoULoss(nn.Module):
    """Generalized IoU loss (https://arxiv.org/abs/1902.09630) of the foreground boxes.

    Args:
        weight: multiplies the loss, 2 in the paper.
    """

    def __init__(self, *, weight: float = 2.0):
        super().__init__()
        self.weight = weight

    def forward(self, inputs: LossInputs) -> Tensor:
        loss = generalized_iou_loss(inputs.fg_boxes, inputs.fg_target_boxes)
        return self.weight * _weighted_mean(loss, inputs)


class DistributionFocalLoss(nn.Module):
    """DFL of the foreground's four sides (Eq. 6), averaged over them.

    Targets are clipped to [0, reg_max - 0.1] bins, as in the official code: what lies outside
    cannot be expressed, and the target always has a bin on its right.

    Args:
        weight: multiplies the loss, 0.25 in the paper.
    """

    def __init__(self, *, weight: float = 0.25):
        super().__init__()
        self.weight = weight

    def forward(self, inputs: LossInputs) -> Tensor:
        representation = inputs.box_representation
        targets = inputs.fg_target_distances / representation.bin_width
        targets = targets.clamp(min=0, max=representation.reg_max - 0.1)
        loss = distribution_focal_loss(inputs.fg_box_logits.flatten(0, 1), targets.flatten())
        loss = loss.view_as(targets).mean(dim=1)
        return self.weight * _weighted_mean(loss, inputs)


class GaussianNLLLoss(nn.Module):
    """Negative log-likelihood of the true distances under :class:`GaussianDistance`, averaged over
    the four sides, in strides (without the constant ln(2 pi) / 2).

    Args:
        weight: multiplies the loss.
    """

    def __init__(self, *, weight: float = 0.25):
        super().__init__()
        self.weight = weight

    def forward(self, inputs: LossInputs) -> Tensor:
        std = inputs.box_representation.std(inputs.fg_box_logits)
        loss = gaussian_nll_loss(
            inputs.fg_distances, inputs.fg_target_distances, std.square(), reduction="none"
        )
        return self.weight * _weighted_mean(loss.mean(dim=1), inputs)


class GFLCriterion(nn.Module):
    """The losses of a batch, each normalised over all workers.

    ``loss_cls`` is divided by the number of foreground locations, an image with none counting as
    one; the losses of boxes by the summed ``box_weight`` of the foreground. Both are means over
    workers, so that n workers with b images each give the gradients of one with n * b.

    Args:
        cls_loss: term of ``loss_cls``.
        box_loss: term of ``loss_box_reg``.
        dist_loss: term of ``loss_dfl``, or None.
        quality_loss: term of ``loss_quality``, or None.
        box_weight: LossInputs -> (M,) weights of the boxes, detached. (It is called before the
            weights and normalisers themselves are known.)
    """

    def __init__(
        self,
        *,
        cls_loss: nn.Module,
        box_loss: nn.Module,
        dist_loss: nn.Module | None = None,
        quality_loss: nn.Module | None = None,
        box_weight: Callable[[LossInputs], Tensor] = max_class_score,
    ):
        super().__init__()
        self.cls_loss = cls_loss
        self.box_loss = box_loss
        self.dist_loss = dist_loss
        self.quality_loss = quality_loss
        self.box_weight = box_weight

    def forward(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        targets: DenseTargets,
        box_representation: nn.Module,
    ) -> dict[str, Tensor]:
        """
        Returns:
            ``loss_cls``, ``loss_box_reg`` and, where their terms are given, ``loss_dfl`` and
            ``loss_quality``: scalars. Without any foreground the losses of boxes are 0 and every
            parameter still gets a (zero) gradient.
        """
        inputs = self.loss_inputs(anchors, predictions, targets, box_representation)
        terms = {
            "loss_cls": self.cls_loss,
            "loss_box_reg": self.box_loss,
            "loss_dfl": self.dist_loss,
            "loss_quality": self.quality_loss,
        }
        return {name: term(inputs) for name, term in terms.items() if term is not None}

    def loss_inputs(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        targets: DenseTargets,
        box_representation: nn.Module,
    ) -> LossInputs:
        """Gather and decode the foreground once, and reduce the two normalisers once."""
        predictions = DensePredictions(
            *(x if x is None else at_least_float32(x) for x in predictions)
        )
        num_classes = predictions.cls_logits.shape[-1]
        foreground = (targets.labels >= 0) & (targets.labels < num_classes)
        image_idxs, location_idxs = foreground.nonzero(as_tuple=True)
        centers = anchors.centers[location_idxs]
        strides = anchors.strides[location_idxs, None]
        box_logits = predictions.box_logits[image_idxs, location_idxs]
        distances = box_representation(box_logits)
        target_boxes = targets.boxes[image_idxs, location_idxs]
        inputs = LossInputs(
            cls_logits=predictions.cls_logits,
            quality_logits=predictions.quality_logits,
            labels=targets.labels,
            fg_idxs=(image_idxs, location_idxs),
            fg_labels=targets.labels[image_idxs, location_idxs],
            fg_joint_logits=predictions.joint_logits((image_idxs, location_idxs)),
            fg_box_logits=box_logits,
            fg_distances=distances,
            fg_boxes=distances_to_boxes(centers, distances * strides),
            fg_target_distances=boxes_to_distances(centers, target_boxes) / strides,
            fg_target_boxes=target_boxes,
            box_weights=distances.new_empty(0),
            num_foreground=distances.new_empty(0),
            total_box_weight=distances.new_empty(0),
            box_representation=box_representation,
        )
        box_weights = self.box_weight(inputs)
        num_foreground = foreground.sum(dim=1).clamp(min=1).sum()
        sums, world_size = sum_over_workers(
            torch.stack([num_foreground.to(box_weights.dtype), box_weights.sum()])
        )
        num_foreground, total = sums / world_size
        return inputs._replace(
            box_weights=box_weights,
            num_foreground=num_foreground.clamp(min=1),
            total_box_weight=total.clamp(min=torch.finfo(total.dtype).tiny),
        )


def _weighted_mean(loss: Tensor, inputs: LossInputs) -> Tensor:
    """The mean of (M,) losses by the weights of the boxes. These are divided first: where all are
    (almost) 0, 1 / total times the factor of a gradient scaler would be infinite."""
    return (loss * (inputs.box_weights / inputs.total_box_weight)).sum()
