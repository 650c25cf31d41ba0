"""From matched detections to the numbers and the curves of a report."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import metrics, side_metrics
from .matching import Matched, Sides

__all__ = ["SIDES", "Evidence", "curves_of", "measure", "metric_names"]

SIDES = ("left", "top", "right", "bottom")
LEVELS = (0.5, 0.8, 0.9)  # of the intervals whose coverage is a metric
# COCO's sizes: areas in pixels^2, the first included.
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, math.inf)}
# Also given for each class and size; the report has all of them.
_OF_PARTS = ("LaECE", "oLRP", "std_spearman", "coverage80")
_LRP = ("", "_localization", "_FP", "_FN")

_OF_SCORES = [
    *("detections", "objects", "matched", "LaECE", "LaACE", "DECE", "mean_iou", "iou_pearson"),
    *("iou_spearman", *(f"LRP{x}" for x in _LRP), *(f"oLRP{x}" for x in _LRP), "oLRP_score"),
]
_OF_STDS = [
    *("std", "error", "std_spearman", *(f"std_spearman_{x}" for x in SIDES)),
    *(f"coverage{100 * x:.0f}" for x in LEVELS),
    *("nll_laplace", "nll_gaussian", "AUSE"),
]
_OF_BINS = [*(f"coverage{100 * x:.0f}_bins" for x in LEVELS), "nll_bins", "outside_bins"]


class Evidence(NamedTuple):
    """What was found on a dataset.

    Attributes:
        loose: detections, matched with the threshold 0.
        strict: the same, matched with ``threshold``.
        sides: of the true positives of ``strict``, in their order.
        object_classes, object_areas: (G,) of all objects but crowds.
        threshold: IoU of a true positive.
    """

    loose: Matched
    strict: Matched
    sides: Sides
    object_classes: np.ndarray
    object_areas: np.ndarray
    threshold: float

    def of_class(self, index: int) -> "Evidence":
        return self._part(
            self.loose.classes == index, self.strict.classes == index, self.object_classes == index
        )

    def of_size(self, least: float, below: float) -> "Evidence":
        """Objects of a size. A detection has that of its object, else its own."""
        places = (self.loose.areas, self.strict.areas, self.object_areas)
        return self._part(*((x >= least) & (x < below) for x in places))

    def _part(self, loose: np.ndarray, strict: np.ndarray, objects: np.ndarray) -> "Evidence":
        matched = strict[self.strict.is_true]
        return self._replace(
            loose=Matched(*(x[loose] for x in self.loose)),
            strict=Matched(*(x[strict] for x in self.strict)),
            sides=Sides._make(None if x is None else x[matched] for x in self.sides),
            object_classes=self.object_classes[objects],
            object_areas=self.object_areas[objects],
        )


def metric_names(class_names: Sequence[str], *, stds: bool = True, bins: bool = True) -> list[str]:
    """The names of :func:`measure`.

    Args:
        class_names: K names.
        stds, bins: whether the detector gives standard deviations, and distributions.
    """
    names = _OF_SCORES + _OF_STDS * stds + _OF_BINS * bins
    parts = [f"_{size}" for size in SIZES]
    parts += [f"-{name}" for name in class_names] if len(class_names) > 1 else []
    return names + [f"{x}{part}" for part in parts for x in _OF_PARTS if x in names]


def measure(
    evidence: Evidence, class_names: Sequence[str]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measures all that is a number.

    Args:
        evidence: what was found.
        class_names: K names.

    Returns:
        {metric: value}, flat; and {"classes": {name: {metric: value}}, "sizes": {...}} with all
        metrics of each class and size. A value is nan where there was nothing to measure.
    """
    flat = _measured(evidence)
    sizes = {name: _measured(evidence.of_size(*limits)) for name, limits in SIZES.items()}
    classes = {name: _measured(evidence.of_class(i)) for i, name in enumerate(class_names)}
    parts = {f"_{name}": x for name, x in sizes.items()}
    if len(classes) > 1:
        parts |= {f"-{name}": x for name, x in classes.items()}
    flat |= {f"{x}{part}": m[x] for part, m in parts.items() for x in _OF_PARTS if x in m}
    return flat, {"classes": classes, "sizes": sizes}


def _measured(evidence: Evidence) -> dict[str, float]:
    values = _of_scores(evidence)
    sides = evidence.sides
    if sides.stds is not None:
        values |= _of_stds(sides.errors, sides.stds)
    if sides.probabilities is not None and sides.bin_places is not None:
        bins = (sides.probabilities.shape[-1],) if sides.probabilities.size else (2,)
        values |= _of_bins(
            sides.probabilities.reshape(-1, *bins), sides.bin_places.reshape(-1, *bins)
        )
    return values


def _of_scores(evidence: Evidence) -> dict[str, float]:
    loose, strict, threshold = evidence.loose, evidence.strict, evidence.threshold
    classes, counts = np.unique(evidence.object_classes, return_counts=True)
    true = strict.is_true
    pooled = metrics.lrp(strict.scores, strict.ious, counts.sum(), threshold)
    optimal = []
    for c, n in zip(classes, counts):
        of_class = strict.classes == c
        found = strict.scores[of_class], strict.ious[of_class]
        optimal.append(metrics.optimal_lrp(*found, n, threshold))
    best = [metrics.mean_of_classes(x) for x in zip(*optimal)] or [math.nan] * 5
    scores, ious = strict.scores[true], strict.ious[true]
    values = [
        *(len(strict.scores), counts.sum(), true.sum()),
        metrics.laece(loose.scores, loose.classes, loose.ious, classes),
        metrics.laace(loose.scores, loose.classes, loose.ious, classes),
        metrics.calibration_error(strict.scores, true),
        ious.mean() if len(ious) else math.nan,
        metrics.pearson(scores, ious),
        metrics.spearman(scores, ious),
        *pooled[:4],
        *best,
    ]
    return dict(zip(_OF_SCORES, map(float, values), strict=True))


def _of_stds(errors: np.ndarray, stds: np.ndarray) -> dict[str, float]:
    sizes = np.abs(errors)
    flat = errors.ravel(), stds.ravel()
    values = [
        *(x.mean() if x.size else math.nan for x in (stds, sizes)),
        metrics.spearman(stds.ravel(), sizes.ravel()),
        *(metrics.spearman(stds[:, i], sizes[:, i]) for i in range(4)),
        *(side_metrics.coverage(*flat, level) for level in LEVELS),
        side_metrics.nll(side_metrics.laplace_density(*flat)),
        side_metrics.nll(side_metrics.gaussian_density(*flat)),
        side_metrics.ause(sizes.ravel(), stds.ravel()),
    ]
    return dict(zip(_OF_STDS, map(float, values), strict=True))


def _of_bins(probabilities: np.ndarray, bin_places: np.ndarray) -> dict[str, float]:
    places = side_metrics.binned_place(probabilities, bin_places)
    values = [
        *(side_metrics.coverage_of_bins(places, level) for level in LEVELS),
        side_metrics.nll(side_metrics.binned_density(probabilities, bin_places)),
        side_metrics.outside_bins(bin_places),
    ]
    return dict(zip(_OF_BINS, values, strict=True))


def curves_of(evidence: Evidence) -> dict[str, Any]:
    """What the picture draws.

    Returns:
        - "scores": for 10 bins of the score, the number of detections, the mean score, the mean
          IoU * [true positive] (threshold 0), and the precision (IoU of at least the threshold).
        - "sides", if there are standard deviations: for groups of equal number, the mean standard
          deviation and the mean \\|error\\|, pixels.
        - "coverage", then: levels, and for each side the coverage of the intervals of standard
          deviations; "coverage_bins", if there are distributions: that of their central intervals.
        - "sparsification", then: the part taken away, and the mean error of the rest over that of
          all, by standard deviation and by the error itself.
    """
    loose, strict, sides = evidence.loose, evidence.strict, evidence.sides
    bins = metrics.binned(loose.scores, loose.ious, 10)
    precision = metrics.binned(strict.scores, strict.is_true, 10).values
    ret: dict[str, Any] = {"scores": {**bins._asdict(), "precision": precision}}
    ret["scores"]["ious"] = ret["scores"].pop("values")
    if sides.stds is None or not len(sides.errors):
        return ret
    errors, stds = np.abs(sides.errors), sides.stds
    groups = np.array_split(np.argsort(stds.ravel()), min(12, errors.size))
    ret["sides"] = {
        "stds": np.array([stds.ravel()[x].mean() for x in groups]),
        "errors": np.array([errors.ravel()[x].mean() for x in groups]),
    }
    levels = np.linspace(0.05, 0.95, 19)
    ret["coverage"] = {"levels": levels} | {
        name: np.array([side_metrics.coverage(errors[:, i], stds[:, i], x) for x in levels])
        for i, name in enumerate(SIDES)
    }
    if sides.probabilities is not None and sides.bin_places is not None:
        ret["coverage_bins"] = {"levels": levels}
        for i, name in enumerate(SIDES):
            places = side_metrics.binned_place(sides.probabilities[:, i], sides.bin_places[:, i])
            of_levels = [side_metrics.coverage_of_bins(places, x) for x in levels]
            ret["coverage_bins"][name] = np.array(of_levels)
    at = np.linspace(0, errors.size - 1, min(51, errors.size)).astype(int)
    ret["sparsification"] = {
        "removed": at / errors.size,
        "by_std": side_metrics.sparsification(errors.ravel(), stds.ravel())[at],
        "by_error": side_metrics.sparsification(errors.ravel(), errors.ravel())[at],
    }
    return ret
