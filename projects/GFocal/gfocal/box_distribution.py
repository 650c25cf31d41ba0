"""From the raw channels of a side to its distance, and from distances to boxes.

Units: a *distance* is in strides of the location's level unless it says pixels; a *bin* is one step
of a general distribution, ``bin_width`` strides wide.

A box representation turns raw channels (..., 4, C) into distances (..., 4). It has

    num_channels    C
    __call__(box_logits) -> distances in strides

and is chosen by passing another one to the head. Reference: Generalized Focal Loss
(https://arxiv.org/abs/2006.04388), Sec. 3.
"""

import math

import torch
from torch import Tensor, nn

__all__ = [
    "DiracDistance",
    "GaussianDistance",
    "GeneralDistribution",
    "aligned_iou",
    "boxes_to_distances",
    "distances_to_boxes",
]

# No side is further than this many strides: keeps exp finite whatever a network says.
_MAX_DISTANCE = 1024.0


def at_least_float32(x: Tensor) -> Tensor:
    """Itself, or a copy in float32: the maths of boxes and scores is not for half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def distances_to_boxes(centers: Tensor, distances: Tensor) -> Tensor:
    """Boxes whose sides lie ``distances`` from ``centers``.

    The inverse of :func:`boxes_to_distances` for the same centres.

    Args:
        centers: (..., 2) points (x, y).
        distances: (..., 4) left, top, right, bottom, in the unit of ``centers``.

    Returns:
        (..., 4) XYXY boxes in that unit.
    """
    return torch.cat([centers - distances[..., :2], centers + distances[..., 2:]], dim=-1)


def boxes_to_distances(centers: Tensor, boxes: Tensor) -> Tensor:
    """How far the sides of ``boxes`` lie from ``centers``; negative where a centre is outside.

    The inverse of :func:`distances_to_boxes` for the same centres.

    Args:
        centers: (..., 2) points (x, y).
        boxes: (..., 4) XYXY boxes in the unit of ``centers``.

    Returns:
        (..., 4) left, top, right, bottom.
    """
    return torch.cat([centers - boxes[..., :2], boxes[..., 2:] - centers], dim=-1)


def aligned_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of each box with the one at the same place.

    Args:
        boxes1, boxes2: (..., 4) XYXY in one unit, broadcastable.

    Returns:
        (...) in [0, 1]; 0 where both boxes are empty.
    """
    lt = torch.maximum(boxes1[..., :2], boxes2[..., :2])
    rb = torch.minimum(boxes1[..., 2:], boxes2[..., 2:])
    intersection = (rb - lt).clamp(min=0).prod(dim=-1)
    union = _area(boxes1) + _area(boxes2) - intersection
    return intersection / union.clamp(min=1e-6)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


class DiracDistance(nn.Module):
    """One number a side: the exponential of its channel is the distance, as in FCOS
    (https://arxiv.org/abs/1904.01355, Sec. 3.1). A Dirac delta in the paper's terms (Eq. 3)."""

    num_channels = 1

    def forward(self, box_logits: Tensor) -> Tensor:
        """(..., 4, 1) -> (..., 4) positive distances, strides, in at least float32."""
        return _exp(box_logits[..., 0])


class GaussianDistance(nn.Module):
    """A Gaussian a side: its mean is the distance, and its deviation is learned with it.

    Channel 0 is the logarithm of the mean, channel 1 that of the standard deviation, both in
    strides. Trained by :class:`gfocal.criterion.GaussianNLLLoss`.
    """

    num_channels = 2

    def forward(self, box_logits: Tensor) -> Tensor:
        """(..., 4, 2) -> (..., 4) means, strides, in at least float32."""
        return _exp(box_logits[..., 0])

    def std(self, box_logits: Tensor) -> Tensor:
        """(..., 4, 2) -> (..., 4) standard deviations, strides."""
        return _exp(box_logits[..., 1])


def _exp(x: Tensor) -> Tensor:
    return at_least_float32(x).clamp(max=math.log(_MAX_DISTANCE)).exp()


class GeneralDistribution(nn.Module):
    """A softmax over the bins 0..reg_max of each side, read by its expectation (Eq. 5).

    Args:
        reg_max: n of the paper, the last bin. A side further than ``reg_max * bin_width`` strides
            from its location cannot be expressed.
        bin_width: the paper's delta, width of a bin in strides.

    Raises:
        ValueError: if ``reg_max`` is not a positive integer or ``bin_width`` is not positive.
    """

    def __init__(self, reg_max: int = 16, bin_width: float = 1.0):
        super().__init__()
        if int(reg_max) != reg_max or reg_max < 1:
            raise ValueError(f"reg_max is {reg_max!r}; expected an integer of at least 1")
        if not bin_width > 0:
            raise ValueError(f"bin_width is {bin_width!r}; expected a positive number of strides")
        self.reg_max = int(reg_max)
        self.bin_width = float(bin_width)
        self.num_channels = self.reg_max + 1
        # (C,) distance of each bin, strides.
        self.register_buffer(
            "bins",
            torch.arange(self.num_channels, dtype=torch.get_default_dtype()) * self.bin_width,
            persistent=False,
        )

    def probabilities(self, box_logits: Tensor) -> Tensor:
        """(..., 4, C) logits -> (..., 4, C) probability of each bin, in at least float32."""
        return at_least_float32(box_logits).softmax(dim=-1)

    def forward(self, box_logits: Tensor) -> Tensor:
        """(..., 4, C) logits -> (..., 4) expected distances, strides, in [0, reg_max * width]."""
        return self._expectation(self.probabilities(box_logits))

    def std(self, box_logits: Tensor) -> Tensor:
        """(..., 4, C) logits -> (..., 4) standard deviation of each side, strides: how unsure the
        model is of it."""
        probs = self.probabilities(box_logits)
        deviation = self.bins.to(probs.dtype) - self._expectation(probs).unsqueeze(-1)
        return (probs * deviation.square()).sum(dim=-1).sqrt()

    def _expectation(self, probs: Tensor) -> Tensor:
        # Not a matrix product: autocast would run that in half precision.
        return (probs * self.bins.to(probs.dtype)).sum(dim=-1)

    def extra_repr(self) -> str:
        return f"reg_max={self.reg_max}, bin_width={self.bin_width}"
