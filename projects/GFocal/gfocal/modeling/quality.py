"""How good is a box? Measures of it and predictors of it.

A quality *predictor* is a part of the head. A *measure* turns ``LossInputs`` into one detached
number in [0, 1] for each foreground location.

References: Generalized Focal Loss (https://arxiv.org/abs/2006.04388), V2
(https://arxiv.org/abs/2011.12885).
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from .boxes import aligned_iou
from .numerics import at_least_float32
from .structures import LossInputs

__all__ = [
    "DistributionGuidedQualityPredictor",
    "NoQuality",
    "QualityBranch",
    "QualityPredictor",
    "centerness",
    "localization_iou",
    "matched_quality",
    "max_class_score",
    "measured",
    "uniform",
]


def localization_iou(inputs: LossInputs) -> Tensor:
    """(M,) IoU of each predicted foreground box with its ground truth: QFL's label (Eq. 2)."""
    return aligned_iou(inputs.fg_boxes.detach(), inputs.fg_target_boxes)


def centerness(inputs: LossInputs) -> Tensor:
    """(M,) how central a location is in its ground truth (FCOS, https://arxiv.org/abs/1904.01355,
    Eq. 3): sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)); 1 at the centre, 0 on a side."""
    sides = inputs.fg_target_distances.clamp(min=0)
    opposite = sides[..., [2, 3, 0, 1]]
    ratios = torch.minimum(sides, opposite) / torch.maximum(sides, opposite).clamp(min=1e-6)
    return ratios[..., :2].prod(dim=-1).sqrt()


def max_class_score(inputs: LossInputs) -> Tensor:
    """(M,) largest class score of each foreground location: GFL's weight of a box."""
    return inputs.fg_joint_logits.detach().max(dim=-1).values.sigmoid()


def matched_quality(inputs: LossInputs) -> Tensor:
    """(M,) the matcher's soft label of each foreground location.

    Raises:
        ValueError: if the matcher gave no soft labels.
    """
    if inputs.targets.quality is None:
        raise ValueError(
            "matched_quality has nothing to read: the matcher answers Matches without quality"
        )
    return inputs.targets.quality[inputs.fg_idxs].to(inputs.fg_joint_logits.dtype)


def measured(measure: Callable[[LossInputs], Tensor], inputs: LossInputs) -> Tensor:
    """(M,) a measure's answer.

    Raises:
        ValueError: if it is not one number a foreground location. Another shape would be broadcast.
    """
    values = measure(inputs)
    shape = (len(inputs.fg_labels),)
    if not isinstance(values, Tensor) or tuple(values.shape) != shape:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        name = getattr(measure, "__name__", None) or type(measure).__name__
        raise ValueError(
            f"the measure {name} answered {got}; expected a tensor of shape {shape}, a number for "
            "each foreground location"
        )
    return values


def uniform(inputs: LossInputs) -> Tensor:
    """(M,) ones: every foreground location counts alike."""
    return torch.ones_like(inputs.fg_boxes[:, 0])


class QualityPredictor(Protocol):
    """A module that estimates the quality of the boxes of one pyramid level. If it needs a certain
    number of channels, it has ``check_num_channels(num_channels)``, which raises ValueError."""

    def __call__(self, box_features: Tensor, box_logits: Tensor) -> Tensor | None:
        """(N, F, H, W), (N, H*W, 4, C) -> (N, H*W, 1) logits, or None."""


class NoQuality(nn.Module):
    """GFLV1: the class score alone is the joint score; no quality is predicted."""

    def forward(self, box_features: Tensor, box_logits: Tensor) -> Tensor | None:
        return None


class QualityBranch(nn.Module):
    """A 3x3 convolution of the box tower: the centerness of FCOS, the IoU of IoU-Net.

    It estimates the measure of the loss that trains it,
    :class:`gfocal.modeling.terms.QualityBranchLoss`.

    Args:
        in_channels: width of the box tower.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 1, kernel_size=3, padding=1)
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.zeros_(self.conv.get_parameter("bias"))

    def forward(self, box_features: Tensor, box_logits: Tensor) -> Tensor:
        """(N, F, H, W) features -> (N, H*W, 1) quality logits; box_logits are not read."""
        return self.conv(box_features).flatten(start_dim=2).transpose(1, 2)


class DistributionGuidedQualityPredictor(nn.Module):
    """DGQP: the shape of a box's distributions tells how well it is localized (GFLV2 Sec. 3.2).

    A sharp distribution marks a sure side. The statistics of a side are its ``topk`` largest
    probabilities and, if asked for, their mean and variance. The statistics of the four sides go
    through two linear layers with a ReLU between.

    The layers keep PyTorch's initial weights. The official code draws both from std 0.01. That is
    next to a saddle, because the gradient of each is scaled by the weights of the other: a short
    training leaves the quality almost constant there.

    Args:
        topk: number of largest probabilities a side, 4 in the paper.
        add_mean: append their mean.
        hidden_dim: p in the paper, width of the hidden layer.
        add_topk: use the probabilities themselves; if False, use the mean and variance only.
        add_var: append their (biased) variance.

    Raises:
        ValueError: if ``topk`` or ``hidden_dim`` is less than 1, or no statistic is asked for; if a
            side has fewer than ``topk`` channels (raised by the head that it becomes a part of).
    """

    def __init__(
        self,
        topk: int = 4,
        add_mean: bool = True,
        hidden_dim: int = 64,
        add_topk: bool = True,
        add_var: bool = False,
    ):
        super().__init__()
        if topk < 1 or hidden_dim < 1:
            raise ValueError(f"topk is {topk} and hidden_dim {hidden_dim}; expected at least 1")
        self.topk = topk
        self.add_topk = add_topk
        self.add_mean = add_mean
        self.add_var = add_var
        num_statistics = topk * add_topk + add_mean + add_var
        if num_statistics == 0:
            raise ValueError("add_topk, add_mean and add_var are all False; expected one at least")
        self.fc1 = nn.Linear(4 * num_statistics, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, 1)

    def check_num_channels(self, num_channels: int) -> None:
        """Raises ValueError if a side of ``num_channels`` channels is too few for the ``topk``."""
        if num_channels < self.topk:
            raise ValueError(
                f"topk is {self.topk} but a side has {num_channels} channels; "
                "DGQP reads a general distribution with at least topk bins"
            )

    def forward(self, box_features: Tensor, box_logits: Tensor) -> Tensor:
        """
        Args:
            box_features: unused; other predictors read them.
            box_logits: (N, H*W, 4, C).

        Returns:
            (N, H*W, 1) quality logits.
        """
        self.check_num_channels(box_logits.shape[-1])
        # Autocast would run the two small layers in half precision.
        device = box_logits.device.type  # on "meta", which counts FLOPs, there is no autocast
        with torch.autocast("cpu" if device == "meta" else device, enabled=False):
            probs = at_least_float32(box_logits).softmax(dim=-1).topk(self.topk, dim=-1).values
            stats = [probs] if self.add_topk else []
            if self.add_mean:
                stats.append(probs.mean(dim=-1, keepdim=True))
            if self.add_var:
                stats.append(probs.var(dim=-1, correction=0, keepdim=True))
            inputs = torch.cat(stats, dim=-1).flatten(start_dim=-2)
            return self.fc2(self.fc1(inputs.to(_dtype_of(self.fc1, inputs.dtype))).relu())


def _dtype_of(layer: nn.Module, default: torch.dtype) -> torch.dtype:
    """The precision that a layer computes in. What tools put in its place may have no ``weight``
    that is a tensor: a quantized one has no parameters at all and takes the default."""
    return next((x.dtype for x in layer.parameters() if x.is_floating_point()), default)
