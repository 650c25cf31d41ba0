"""From the raw channels of a side to its distance, and back to bins.

Units: a *distance* is in strides of the location's level; a *bin coordinate* counts bins: k is the
k-th bin, k + 0.5 lies halfway to the next one.

A box representation turns raw channels (..., 4, C) into distances (..., 4). It is an argument of
the head.

Reference: Generalized Focal Loss (https://arxiv.org/abs/2006.04388), Sec. 3.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from .numerics import at_least_float32

__all__ = [
    "BinnedRepresentation",
    "BoxRepresentation",
    "DiracDistance",
    "GaussianDistance",
    "GeneralDistribution",
    "GeometricDistribution",
    "LogDistance",
]

# No side is further than this many strides. It keeps exp finite for every output of a network.
_MAX_DISTANCE = 1024.0


class BoxRepresentation(Protocol):
    """A module that reads the channels of a side.

    Attributes:
        num_channels: C.
    """

    num_channels: int

    def __call__(self, box_logits: Tensor) -> Tensor:
        """(..., 4, C) -> (..., 4) distances, strides."""


class BinnedRepresentation(BoxRepresentation, Protocol):
    """A box representation that reads a distribution over bins.

    Attributes:
        bins: (C,) distance of each bin, strides, increasing. The expectation, DFL, the statistics
            and the pictures all use these.
    """

    bins: Tensor

    def probabilities(self, box_logits: Tensor) -> Tensor:
        """(..., 4, C) -> (..., 4, C) probability of each bin."""

    def to_bins(self, distances: Tensor) -> Tensor:
        """(...) strides -> (...) bin coordinates."""

    def std(self, box_logits: Tensor) -> Tensor:
        """(..., 4, C) -> (..., 4) standard deviations, strides."""


class DiracDistance(nn.Module):
    """One number a side: the exponential of its channel is the distance, as in FCOS
    (https://arxiv.org/abs/1904.01355, Sec. 3.1). A Dirac delta in the paper's terms (Eq. 3)."""

    num_channels = 1

    def forward(self, box_logits: Tensor) -> Tensor:
        """(..., 4, 1) -> (..., 4) positive distances, strides, in at least float32."""
        return _exp(box_logits[..., 0])


class LogDistance(nn.Module):
    """One number a side: the logarithm of its distance in units, as in FoveaBox
    (https://arxiv.org/abs/1904.03797). Trained by
    :class:`gfocal.modeling.terms.LogSmoothL1Loss`.

    Args:
        unit: in strides. FoveaBox's anchors have sides of 4 * stride, and its unit is half of that.

    Raises:
        ValueError: if ``unit`` is not positive.
    """

    num_channels = 1

    def __init__(self, unit: float = 2.0):
        super().__init__()
        if not unit > 0:
            raise ValueError(f"unit is {unit!r}; expected a positive number of strides")
        self.unit = float(unit)

    def forward(self, box_logits: Tensor) -> Tensor:
        """(..., 4, 1) -> (..., 4) positive distances, strides, in at least float32."""
        return self.unit * _exp(box_logits[..., 0])

    def to_logits(self, distances: Tensor) -> Tensor:
        """(...) strides, positive -> (...) channels. The inverse of :meth:`forward`."""
        return (at_least_float32(distances) / self.unit).log()

    def extra_repr(self) -> str:
        return f"unit={self.unit}"


class GaussianDistance(nn.Module):
    """A Gaussian a side: its mean is the distance, and its deviation is trained with it.

    Channel 0 is the logarithm of the mean, channel 1 that of the standard deviation, both in
    strides. Trained by :class:`gfocal.modeling.terms.GaussianNLLLoss`.
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
    """A softmax over the bins 0..reg_max of each side; the distance is its expectation (Eq. 5).

    Args:
        reg_max: n of the paper, the last bin. The largest distance is ``reg_max * bin_width``
            strides.
        bin_width: the paper's delta, width of a bin in strides.

    Raises:
        ValueError: if ``reg_max`` is not a positive integer or ``bin_width`` is not positive.
    """

    bins: Tensor

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
        """(..., 4, C) logits -> (..., 4) standard deviation of each side, strides. It says how
        unsure the model is of the side."""
        probs = self.probabilities(box_logits)
        deviation = self.bins.to(probs.dtype) - self._expectation(probs).unsqueeze(-1)
        return (probs * deviation.square()).sum(dim=-1).sqrt()

    def to_bins(self, distances: Tensor) -> Tensor:
        """Bin coordinates of distances: linear between the bins, and continued beyond them with the
        slope of the nearest two. The inverse reads ``bins`` at the coordinate.

        Args:
            distances: (...) strides.

        Returns:
            (...) from 0 to C - 1 if the bins can express the distance, else below 0 or above C - 1.
        """
        distances = at_least_float32(distances)
        bins = self.bins.to(distances.dtype)
        left = torch.searchsorted(bins, distances.detach().contiguous(), right=True) - 1
        left = left.clamp(0, len(bins) - 2)
        return left + (distances - bins[left]) / (bins[left + 1] - bins[left])

    def _expectation(self, probs: Tensor) -> Tensor:
        # Not a matrix product: autocast would run that in half precision.
        return (probs * self.bins.to(probs.dtype)).sum(dim=-1)

    def extra_repr(self) -> str:
        return f"reg_max={self.reg_max}, bin_width={self.bin_width}"


class GeometricDistribution(GeneralDistribution):
    """A general distribution whose bins get wider with the distance: 0, and ``reg_max`` points from
    ``first`` to ``last`` in equal ratios. One level can then hold boxes of all sizes.

    Args:
        reg_max: n of the paper, the last bin.
        first, last: distances of the bins 1 and ``reg_max``, strides.

    Raises:
        ValueError: ``reg_max`` is not an integer of at least 2, or not 0 < ``first`` < ``last``.
    """

    def __init__(self, reg_max: int = 16, first: float = 1.0, last: float = 128.0):
        super().__init__(reg_max)
        if reg_max < 2 or not 0 < first < last:
            raise ValueError(
                f"got reg_max {reg_max!r}, first {first!r} and last {last!r}; expected an integer "
                "of at least 2, and 0 < first < last"
            )
        self.first, self.last = float(first), float(last)
        ratios = torch.linspace(0, 1, self.reg_max, dtype=torch.float64)
        points = first * (last / first) ** ratios
        bins = torch.cat([points.new_zeros(1), points]).to(self.bins.dtype)
        self.register_buffer("bins", bins, persistent=False)

    def extra_repr(self) -> str:
        return f"reg_max={self.reg_max}, first={self.first}, last={self.last}"
