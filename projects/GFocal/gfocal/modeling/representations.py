"""From the raw channels of a side to its distance, and back to bins.

Units: a *distance* is in strides of the location's level; a *bin coordinate* counts bins: k is the
k-th bin, k + 0.5 lies halfway to the next one.

A box representation turns raw channels (..., 4, C) into distances (..., 4). It is an argument of
the head.

Reference: Generalized Focal Loss (https://arxiv.org/abs/2006.04388), Sec. 3.
"""

import itertools
import math
from collections.abc import Sequence
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
    """A softmax over bins of each side; the distance is its expectation (Eq. 5).

    The paper's bins are 0, 1, ..., n strides. Any others that increase will do: the expectation,
    DFL, DGQP, standard deviations, pictures and exports read ``bins``. Bins other than 0, d,
    2d, ... are saved with the weights, because weights mean nothing with other bins.

    Args:
        reg_max: n of the paper, the last bin; 16 by default.
        bin_width: the paper's delta, width of a bin in strides; 1 by default.
        bins: the distances of other bins, strides, at least two; see :meth:`geometric` and
            :meth:`signed`. The two numbers above are then not given.

    Attributes:
        bins: (C,) distance of each bin, strides.
        num_channels: C.
        reg_max: C - 1.
        bin_width: strides; None with ``bins`` of one's own.

    Raises:
        ValueError: ``reg_max`` is not a positive integer, ``bin_width`` is not positive, or
            ``bins`` are fewer than two, not finite, not increasing, or given with one of these.
    """

    bins: Tensor

    def __init__(
        self,
        reg_max: int | None = None,
        bin_width: float | None = None,
        bins: Sequence[float] | None = None,
    ):
        super().__init__()
        dtype = torch.get_default_dtype()
        if bins is None:
            self.reg_max = _reg_max_of(16 if reg_max is None else reg_max)
            self.bin_width: float | None = 1.0 if bin_width is None else float(bin_width)
            if not 0 < self.bin_width < math.inf:
                raise ValueError(
                    f"bin_width is {bin_width!r}; expected a positive number of strides"
                )
            places = torch.arange(self.reg_max + 1, dtype=dtype) * self.bin_width
        elif reg_max is not None or bin_width is not None:
            raise ValueError(
                f"got bins, and also reg_max {reg_max!r} and bin_width {bin_width!r}; expected "
                "bins alone, or the two without bins"
            )
        else:
            self.reg_max, self.bin_width = len(bins) - 1, None
            places = torch.tensor(_increasing([float(x) for x in bins]), dtype=dtype)
        self.num_channels = self.reg_max + 1
        self.register_buffer("bins", places, persistent=self.bin_width is None)

    @classmethod
    def uniform(cls, reg_max: int = 16, width: float = 1.0) -> "GeneralDistribution":
        """The paper's bins: 0, width, ..., reg_max * width strides."""
        return cls(reg_max, width)

    @classmethod
    def geometric(
        cls, reg_max: int = 16, first: float = 0.25, last: float = 64.0
    ) -> "GeneralDistribution":
        """Bins that get wider with the distance, so that a level can hold boxes of all sizes: 0,
        and ``reg_max`` points from ``first`` to ``last`` strides in equal ratios.

        Raises:
            ValueError: ``reg_max`` is not an integer of at least 2, or not 0 < first < last.
        """
        if int(reg_max) != reg_max or reg_max < 2 or not 0 < first < last:
            raise ValueError(
                f"got reg_max {reg_max!r}, first {first!r} and last {last!r}; expected an integer "
                "of at least 2, and 0 < first < last"
            )
        steps = int(reg_max) - 1
        return cls(bins=[0.0, *(first * (last / first) ** (i / steps) for i in range(steps + 1))])

    @classmethod
    def signed(cls, low: float, high: float, width: float = 1.0) -> "GeneralDistribution":
        """Bins from ``low`` to ``high`` strides, ``width`` apart. With ``low`` below 0 a location
        can be outside of its box, as PP-YOLOE has it for small objects (-2 to 17).

        Raises:
            ValueError: a number is not finite, ``width`` is not positive, or it does not divide the
                range from ``low`` to ``high``.
        """
        finite = math.isfinite(high - low) and width > 0
        steps = round((high - low) / width) if finite and low < high else 0
        if not (steps and math.isclose(low + steps * width, high, abs_tol=1e-6)):
            raise ValueError(
                f"got low {low!r}, high {high!r} and width {width!r}; expected a positive width "
                "that divides the range, which is finite"
            )
        return cls(bins=[low + i * width for i in range(steps + 1)])

    def probabilities(self, box_logits: Tensor) -> Tensor:
        """(..., 4, C) logits -> (..., 4, C) probability of each bin, in at least float32."""
        return at_least_float32(box_logits).softmax(dim=-1)

    def forward(self, box_logits: Tensor) -> Tensor:
        """(..., 4, C) logits -> (..., 4) expected distances, strides, from first to last bin."""
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

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        ours, theirs = self.bins, state_dict.get(f"{prefix}bins")
        # Of another number of bins, the layer before has another shape, which is found anyway.
        others = theirs is not None and theirs.shape == ours.shape
        if not others or torch.allclose(theirs.to(ours), ours):
            super()._load_from_state_dict(state_dict, prefix, *args)
        else:
            errors = args[-1]
            errors.append(
                f"{prefix}bins: {_shown(theirs)} in the file, {_shown(ours)} in the model"
            )

    def extra_repr(self) -> str:
        if self.bin_width is not None:
            return f"reg_max={self.reg_max}, bin_width={self.bin_width}"
        return f"bins={_shown(self.bins)}"


def _shown(bins: Tensor) -> str:
    return f"[{', '.join(f'{x:g}' for x in bins.tolist())}]"


def _reg_max_of(value: int) -> int:
    if int(value) != value or value < 1:
        raise ValueError(f"reg_max is {value!r}; expected an integer of at least 1")
    return int(value)


def _increasing(bins: list[float]) -> list[float]:
    """Bins (C,), checked. Numbers and no tensor, which may be on the meta device."""
    increase = len(bins) > 1 and all(a < b for a, b in itertools.pairwise(bins))
    if not (increase and all(map(math.isfinite, bins))):
        raise ValueError(f"bins are {bins}; expected at least two finite numbers that increase")
    return bins
