"""Finding a :class:`Calibration` on the matched detections of a validation set.

T detections, M of them true positives.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import isotonic_regression

from ..modeling.uncertainty import calibrated_score, central_half_width

__all__ = ["ScoreMap", "closed_form", "fit_std_scale", "isotonic"]

LEVELS = (0.5, 0.8, 0.9)  # the intervals whose coverage is fitted
_LEAST = 1e-6  # of a value, and of what is left to 1


class ScoreMap(NamedTuple):
    """A map of scores that is linear between points; see :class:`Calibration`.

    Attributes:
        scores, values: (P,) increasing, from score 0 to score 1.
    """

    scores: np.ndarray
    values: np.ndarray

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """(T,) scores -> (T,) calibrated scores."""
        return np.interp(scores, self.scores, self.values)


def fit_std_scale(errors: np.ndarray, stds: np.ndarray) -> float:
    """The factor of standard deviations with which central intervals cover what they say.

    For each of 50, 80 and 90 % there is one factor with which the interval of
    :func:`central_half_width` covers that part of the errors: a quantile of |error| / std. The
    result is the geometric mean of the three.

    Args:
        errors: (...) prediction minus truth, of sides.
        stds: (...) their standard deviations, in the same unit.

    Returns:
        The factor.

    Raises:
        ValueError: no errors, or so many that are 0 that no interval is too short.
    """
    errors, stds = np.abs(np.ravel(errors)), np.ravel(stds)
    if not len(errors):
        raise ValueError("no true positive to fit standard deviations on")
    ratios = errors / np.maximum(stds, 1e-12)
    factors = [np.quantile(ratios, level) / central_half_width(1.0, level) for level in LEVELS]
    if min(factors) <= 0:
        raise ValueError("half of the sides have no error at all: nothing to fit intervals on")
    return float(np.exp(np.mean(np.log(factors))))


def closed_form(mean_iou: float, beta: float = 2.0) -> ScoreMap:
    """The map of :func:`calibrated_score`, at 200 points and within 1e-3 of it.

    Args:
        mean_iou: q, of true positives.
        beta: of QFL.

    Raises:
        ValueError: ``mean_iou`` is not in (0, 1).
    """
    inner = torch.linspace(-9, 9, 197, dtype=torch.float64).sigmoid()
    points = torch.cat([inner, torch.tensor([mean_iou], dtype=torch.float64)]).unique()
    values = calibrated_score(points, mean_iou, beta)
    scores = np.concatenate([[0.0], points.numpy(), [1.0]])
    return ScoreMap(scores, np.concatenate([[0.0], values.numpy(), [1.0]]))


def isotonic(scores: np.ndarray, labels: np.ndarray) -> ScoreMap:
    """Isotonic regression, linear between the centres of its steps. So no two scores become one,
    and the order of detections stays (centered isotonic regression, Oron and Flournoy 2017).

    Args:
        scores: (T,).
        labels: (T,) what a score should be on average, in [0, 1].

    Raises:
        ValueError: all labels are 0.
    """
    if not np.any(labels):
        raise ValueError("no true positive to fit scores on")
    order = np.argsort(scores, kind="stable")
    fit = isotonic_regression(np.asarray(labels, float)[order])
    starts, ends = fit.blocks[:-1], fit.blocks[1:]
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(scores, float)[order])])
    centers = (sums[ends] - sums[starts]) / (ends - starts)
    values = fit.x[starts].clip(_LEAST, 1 - _LEAST)
    keep = np.diff(values, prepend=0) > _LEAST / 2
    keep &= (np.diff(centers, prepend=0) > _LEAST / 2) & (centers < 1)
    centers, values = centers[keep], values[keep]
    # Beyond the last step the map hardly rises: nothing was seen there.
    last = values[-1] + 0.01 * (1 - values[-1])
    return ScoreMap(
        np.concatenate([[0.0], centers, [1.0]]), np.concatenate([[0.0], values, [last]])
    )
