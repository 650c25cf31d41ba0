"""Finding a :class:`Calibration` on the matched detections of a validation set.

T detections, M of them true positives.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import isotonic_regression

from ..modeling.uncertainty import Calibration, calibrated_score, central_half_width
from .reliability.measuring import Evidence
from .reliability.metrics import laece
from .reliability.side_metrics import coverage

__all__ = ["Row", "ScoreMap", "calibrate", "closed_form", "fit_std_scale", "isotonic"]

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


class Row(NamedTuple):
    """A line of the table of :func:`calibrate`.

    Attributes:
        name: of the number.
        fitted, judged: its values on the images that were fitted, and on the others.
    """

    name: str
    fitted: float
    judged: float


def calibrate(
    fitted: Evidence, judged: Evidence, both: Evidence, beta: float | None = 2.0
) -> tuple[Calibration, list[Row]]:
    """Fits a calibration on some images, judges it on others, and fits it anew on both.

    Scores: the closed form, which knows nothing but the mean IoU of the true positives, and
    isotonic regression. That with the smaller LaECE on the other images is taken; if both are worse
    than the scores as they are, these stay. Standard deviations: one factor.

    Args:
        fitted, judged, both: what the detector, not calibrated, found on the images.
        beta: of the QFL that trained the scores; None: another loss did, and there is no closed
            form.

    Returns:
        The calibration, and the numbers before and after, of the first fit.

    Raises:
        ValueError: there is no true positive, or nothing to fit intervals on.
    """
    maps = _score_maps(fitted, beta)
    errors = {name: [_laece(x, of) for of in (fitted, judged)] for name, x in maps.items()}
    rows = [Row(f"LaECE, scores {name}", *values) for name, values in errors.items()]
    best = min(errors, key=lambda name: errors[name][1])
    scale = 1.0
    if fitted.sides.stds is not None:
        scale = _scale_of(fitted)
        for factor, what in ((1.0, "stds as they are"), (scale, f"stds times {scale:.3f}")):
            for level in LEVELS:
                values = (_coverage(of, factor, level) for of in (fitted, judged))
                rows.append(Row(f"coverage of {100 * level:.0f} %, {what}", *values))
        scale = _scale_of(both)
    points = _score_maps(both, beta)[best]
    return Calibration(scale, points.scores.tolist(), points.values.tolist(), best), rows


def _score_maps(evidence: Evidence, beta: float | None) -> dict[str, "ScoreMap"]:
    """Maps of scores, each under a name, fitted on what was found."""
    true = evidence.strict.is_true
    if not true.any():
        raise ValueError("no true positive to fit scores on")
    maps = {"as they are": ScoreMap(np.array([0.0, 1.0]), np.array([0.0, 1.0]))}
    if beta is not None:
        maps["in closed form"] = closed_form(float(evidence.strict.ious[true].mean()), beta)
    maps["isotonic"] = isotonic(evidence.loose.scores, evidence.loose.ious)
    return maps


def _scale_of(evidence: Evidence) -> float:
    assert evidence.sides.stds is not None
    return fit_std_scale(evidence.sides.errors, evidence.sides.stds)


def _laece(score_map: "ScoreMap", evidence: Evidence) -> float:
    loose = evidence.loose
    return laece(
        score_map(loose.scores), loose.classes, loose.ious, np.unique(evidence.object_classes)
    )


def _coverage(evidence: Evidence, scale: float, level: float) -> float:
    sides = evidence.sides
    assert sides.stds is not None
    return coverage(sides.errors.ravel(), scale * sides.stds.ravel(), level)


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
