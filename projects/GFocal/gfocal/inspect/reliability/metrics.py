"""How far scores are from what they should be, and how good the detections are at their best.

Pure functions on arrays of T detections, see matching.py. A number that nothing was measured for is
nan.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = [
    "LRP",
    "Bins",
    "binned",
    "calibration_error",
    "laace",
    "laece",
    "lrp",
    "mean_of_classes",
    "optimal_lrp",
    "pearson",
    "spearman",
]

NUM_BINS = 25  # of the published numbers


class Bins(NamedTuple):
    """Detections in bins of their score.

    Attributes:
        counts: (B,) how many.
        scores, values: (B,) the means; nan in an empty bin.
    """

    counts: np.ndarray
    scores: np.ndarray
    values: np.ndarray


def binned(
    scores: np.ndarray,
    values: np.ndarray,
    num_bins: int = NUM_BINS,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Bins:
    """Means in bins of equal width.

    Args:
        scores, values: (T,).
        num_bins: B.
        limits: first and last edge. A bin has its upper edge, and the first one both.
    """
    edges = np.linspace(*limits, num_bins + 1)
    places = np.searchsorted(edges, scores, side="left").clip(1, num_bins) - 1
    counts = np.bincount(places, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(places, x, num_bins) / counts for x in (scores, values)]
    return Bins(counts, *means)


def calibration_error(
    scores: np.ndarray,
    values: np.ndarray,
    num_bins: int = NUM_BINS,
    limits: tuple[float, float] = (0.0, 1.0),
) -> float:
    """Expected calibration error: sum_b n_b/n |mean score - mean value|.

    With the value 1 for a true positive and else 0 it is D-ECE (Kueppers et al., CVPRW 2020,
    https://arxiv.org/abs/2004.13546), of all classes together. uq-detr puts its bins between the
    smallest and the largest score of the detector at hand. Bins over [0, 1] are those of the
    papers, and the same for each detector. The arguments are those of :func:`binned`.
    """
    if not len(scores):
        return math.nan
    counts, mean_scores, means = binned(scores, values, num_bins, limits)
    filled = counts > 0
    gaps = np.abs(mean_scores - means)[filled]
    return float((counts[filled] * gaps).sum() / counts.sum())


def laece(
    scores: np.ndarray,
    classes: np.ndarray,
    ious: np.ndarray,
    measured: Iterable[int],
    num_bins: int = NUM_BINS,
    limits: tuple[float, float] = (0.0, 1.0),
) -> float:
    """Localization-aware ECE (Oksuz et al., CVPR 2023, https://arxiv.org/abs/2307.00934): the
    :func:`calibration_error` of each class, with the value IoU * [true positive], averaged over
    classes. Detections that were matched with the threshold 0 make it LaECE_0 (Kuzucu et al., ECCV
    2024, https://arxiv.org/abs/2405.20459).

    Args:
        scores, classes, ious: (T,); the IoU is 0 for a false positive.
        measured: classes that count: those that have an object, as in the authors' code (uq-detr
            takes those that have a detection). One without a detection is left out.
        num_bins, limits: as in :func:`binned`.
    """
    of_class = {c: classes == c for c in measured}
    return mean_of_classes(
        calibration_error(scores[x], ious[x], num_bins, limits) for x in of_class.values()
    )


def laace(
    scores: np.ndarray, classes: np.ndarray, ious: np.ndarray, measured: Iterable[int]
) -> float:
    """LaECE with adaptive bins (LaACE_0 of Kuzucu et al.): each detection is a bin of its own. So
    it is the mean of |score - IoU * [true positive]| of a class, averaged over classes. Scores that
    are right on average only do not make it 0. The arguments are those of :func:`laece`."""
    gaps = np.abs(scores - ious)
    of_class = {c: gaps[classes == c] for c in measured}
    return mean_of_classes(float(x.mean()) if len(x) else math.nan for x in of_class.values())


def mean_of_classes(values: Iterable[float]) -> float:
    """The mean of those that are numbers; nan if none is."""
    found = [x for x in values if not math.isnan(x)]
    return float(np.mean(found)) if found else math.nan


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Linear correlation of two arrays; nan of fewer than 3 pairs, or if one is constant."""
    return float(stats.pearsonr(a, b)[0]) if _vary(a, b) else math.nan


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the ranks of two arrays, in which equal values share a rank; nan as in
    :func:`pearson`."""
    return float(stats.spearmanr(a, b)[0]) if _vary(a, b) else math.nan


def _vary(a: np.ndarray, b: np.ndarray) -> bool:
    return len(a) > 2 and bool(np.ptp(a) > 0 and np.ptp(b) > 0)


class LRP(NamedTuple):
    """Localization Recall Precision error; 0 is perfect, 1 is the worst.

    Attributes:
        total: the error.
        localization: mean 1 - IoU of true positives.
        false_positives: 1 - precision.
        false_negatives: 1 - recall.
        score: detections with at least this score count; nan if none does.
    """

    total: float
    localization: float
    false_positives: float
    false_negatives: float
    score: float


def lrp(scores: np.ndarray, ious: np.ndarray, num_objects: int, threshold: float) -> LRP:
    """LRP (Oksuz et al., ECCV 2018, https://arxiv.org/abs/1807.01696, Eq. 3) of all detections:

        (sum over TP of (1 - IoU) / (1 - threshold) + FP + FN) / (TP + FP + FN)

    Args:
        scores: (T,).
        ious: (T,) with the object; 0 of a false positive.
        num_objects: that there are to be found.
        threshold: the IoU of a true positive, below 1.

    Returns:
        The error and its components; nan without objects, where uq-detr has 0 or 1.
    """
    return LRP(*_lrps(scores, ious, num_objects, threshold)[:, -1].tolist())


def optimal_lrp(scores: np.ndarray, ious: np.ndarray, num_objects: int, threshold: float) -> LRP:
    """The smallest LRP of all score thresholds (Eq. 8 there), also of one that no detection
    reaches. It is defined for a class. The arguments are those of :func:`lrp`."""
    errors = _lrps(scores, ious, num_objects, threshold)
    return LRP(*errors[:, errors[0].argmin()].tolist())  # of equal ones, the highest threshold


def _lrps(scores: np.ndarray, ious: np.ndarray, num_objects: int, threshold: float) -> np.ndarray:
    """(5, E) the fields of LRP at each score, from the best detection on; first without any."""
    if not 0 <= threshold < 1:
        raise ValueError(f"the IoU threshold is {threshold!r}; expected a number in [0, 1)")
    if not num_objects:
        return np.full((5, 1), math.nan)
    order = np.argsort(-scores, kind="stable")
    scores, ious = scores[order], ious[order]
    ends = np.flatnonzero(np.diff(scores, append=-np.inf))  # equal scores go together
    tp = np.append(0, np.cumsum(ious > 0)[ends])
    errors = np.append(0, np.cumsum(np.where(ious > 0, 1 - ious, 0.0))[ends])
    found = np.append(0, ends + 1)
    fp, fn = found - tp, num_objects - tp
    with np.errstate(invalid="ignore"):  # nan where there is no TP, or no detection
        parts = errors / tp, fp / found, fn / num_objects
    total = (errors / (1 - threshold) + fp + fn) / (found + fn)
    return np.stack([total, *parts, np.append(math.nan, scores[ends])])
