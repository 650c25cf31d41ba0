"""Whether the sides are where a detection says, as surely as it says.

Pure functions on arrays of N sides, see :class:`gfocal.inspect.reliability.matching.Sides`. A
number that nothing was measured for is nan.

**The distribution between bins** is decided here, and here only: its density is linear between
neighbouring bins. So the probability of a bin is a triangle that reaches to its neighbours; at the
first and the last bin it is half a triangle. Outside of the bins the density is 0.

**A true side outside the bins** is in no central interval. Its density counts as ``LEAST_DENSITY``,
as every density below that does.
"""

import math

import numpy as np

from ...modeling.uncertainty import central_half_width

__all__ = [
    "ause",
    "binned_density",
    "binned_place",
    "coverage",
    "coverage_of_bins",
    "gaussian_density",
    "laplace_density",
    "nll",
    "outside_bins",
    "sparsification",
]

LEAST_DENSITY = 1e-6  # a pixel; so a side costs 13.8 nats at most
LEAST_STD = 1e-3  # pixels; the density of a smaller one would be without bound


def coverage(errors: np.ndarray, stds: np.ndarray, level: float) -> float:
    """The part of the true sides inside the interval of a standard deviation, see
    :func:`gfocal.modeling.uncertainty.central_half_width`. It should be ``level``.

    Args:
        errors, stds: (N,) pixels.
        level: in (0, 1).
    """
    return _mean(np.abs(errors) <= central_half_width(stds, level))


def coverage_of_bins(places: np.ndarray, level: float) -> float:
    """The part of the true sides inside the central interval of their distribution: between its
    quantiles (1 - level) / 2 and (1 + level) / 2.

    Args:
        places: (N,) of :func:`binned_place`.
        level: in (0, 1).
    """
    return _mean(np.abs(places - 0.5) <= level / 2)


def binned_place(probabilities: np.ndarray, bin_places: np.ndarray) -> np.ndarray:
    """Where the true side lies in its distribution: the probability on one side of it. These are
    uniform in [0, 1] if the distributions are right.

    Args:
        probabilities: (N, C) of the bins.
        bin_places: (N, C) pixels, increasing or decreasing, minus the true side.

    Returns:
        (N,) from 0 at the first bin to 1 at the last; 0 and 1 also outside of them.
    """
    peaks, left, width, part = _segments(probabilities, bin_places)
    areas = (peaks[:, 1:] + peaks[:, :-1]) / 2 * np.abs(np.diff(bin_places, axis=1))
    before = np.concatenate([np.zeros((len(areas), 1)), np.cumsum(areas, axis=1)], axis=1)
    rows = np.arange(len(peaks))
    low, high = peaks[rows, left], peaks[rows, left + 1]
    inside = width * (low * part + (high - low) * part**2 / 2)
    return (before[rows, left] + inside).clip(0, 1)


def binned_density(probabilities: np.ndarray, bin_places: np.ndarray) -> np.ndarray:
    """(N,) density of the distributions at the true sides, a pixel; 0 outside of the bins. The
    arguments are those of :func:`binned_place`."""
    peaks, left, _, part = _segments(probabilities, bin_places)
    rows = np.arange(len(peaks))
    low, high = peaks[rows, left], peaks[rows, left + 1]
    return np.where(_is_outside(bin_places), 0.0, low + (high - low) * part)


def outside_bins(bin_places: np.ndarray) -> float:
    """The part of the true sides that lie outside of the (N, C) bins."""
    return _mean(_is_outside(bin_places))


def _is_outside(bin_places: np.ndarray) -> np.ndarray:
    return (bin_places.min(axis=1) > 0) | (bin_places.max(axis=1) < 0)


def _segments(
    probabilities: np.ndarray, bin_places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(N, C) densities at the bins; and of the segment between two bins that the truth is in (or
    nearest to): (N,) index of its first bin, width, and the part of it before the truth."""
    distances = np.abs(bin_places - bin_places[:, :1])  # (N, C) from the first bin, increasing
    signs = np.sign(bin_places[:, -1] - bin_places[:, 0])
    truth = -bin_places[:, 0] * signs
    widths = np.diff(distances, axis=1)
    # Half the base of a bin's triangle; its height is the probability over that.
    base = (np.pad(widths, ((0, 0), (1, 0))) + np.pad(widths, ((0, 0), (0, 1)))) / 2
    left = ((distances <= truth[:, None]).sum(axis=1) - 1).clip(0, distances.shape[1] - 2)
    rows = np.arange(len(distances))
    width = widths[rows, left]
    part = ((truth - distances[rows, left]) / width).clip(0, 1)
    return probabilities / base, left, width, part


def gaussian_density(errors: np.ndarray, stds: np.ndarray) -> np.ndarray:
    """(N,) errors and standard deviations, pixels -> (N,) density of a Gaussian, a pixel."""
    stds = np.maximum(stds, LEAST_STD)
    return np.exp(-((errors / stds) ** 2) / 2) / (stds * math.sqrt(2 * math.pi))


def laplace_density(errors: np.ndarray, stds: np.ndarray) -> np.ndarray:
    """(N,) errors and standard deviations, pixels -> (N,) density of a Laplace distribution, a
    pixel. Its scale is std / sqrt(2)."""
    scales = np.maximum(stds, LEAST_STD) / math.sqrt(2)
    return np.exp(-np.abs(errors) / scales) / (2 * scales)


def nll(densities: np.ndarray) -> float:
    """Mean negative log-likelihood of the true sides, nats, of their (N,) densities a pixel. It is
    less than 0 where densities are above 1."""
    return _mean(-np.log(np.maximum(densities, LEAST_DENSITY)))


def sparsification(errors: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The mean error of the sides that are left when the most uncertain ones are taken away (Ilg et
    al., ECCV 2018, https://arxiv.org/abs/1802.07095, Sec. 5).

    Args:
        errors: (N,) |error|, pixels.
        order: (N,) by which the largest are taken away first: the standard deviations, or the
            errors themselves (the oracle). Equal ones have the mean error of their group, so that
            no order among them matters.

    Returns:
        (N,): the mean of all, of all but one, ..., of one; divided by the mean of all.
    """
    if not len(errors) or not errors.sum():
        return np.full(len(errors), math.nan)
    _, groups, counts = np.unique(order, return_inverse=True, return_counts=True)
    means = np.bincount(groups, errors) / counts
    kept = np.cumsum(means[np.sort(groups)]) / np.arange(1, len(errors) + 1)
    return kept[::-1] / errors.mean()


def ause(errors: np.ndarray, stds: np.ndarray) -> float:
    """Area under the sparsification error: the mean gap between the :func:`sparsification` by
    standard deviation and that by the error itself. 0: they have the same order.

    Args:
        errors: (N,) |error|, pixels.
        stds: (N,) pixels.
    """
    return _mean(sparsification(errors, stds) - sparsification(errors, errors))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan
