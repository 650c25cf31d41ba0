"""How likely each annotation of an image is wrong, and in which way.

N annotations, H detected objects, K classes. Boxes are XYXY, pixels. Sides are left, top, right,
bottom. Every score is in [0, 1]; each grows with the evidence, and none is a probability.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .matching import Annotated, Matched, Objects, pairwise_iou

__all__ = ["KINDS", "Judged", "judge", "side_errors", "std_scale"]

KINDS = ("missing", "spurious", "wrong_class", "bad_side", "duplicate")

# Chosen on shapes with injected mistakes, see docs/audit.md.
SURPRISING = 6.0  # standard deviations at which a side is suspect by half
NOISE = 0.05  # of the extent: as much an annotator's hand may shake
SHARP = 0.1  # of the extent: the mean standard deviation that divides a missing score by e
# They make the kinds comparable: of the findings around 0.5 on the shapes, half are right.
UNSUPPORTED, OTHER_CLASS, OFF = 32, 3, 0.5
FEWEST = 20  # matched objects, below which standard deviations are taken as they are
_NORMAL_MEDIAN = 0.6745  # of |z|, if z is standard normal


class Judged(NamedTuple):
    """What may be wrong in an image.

    Attributes:
        missing: (H,) that an object lacks its annotation.
        spurious: (N,) that there is nothing at an annotation's place.
        wrong_class: (N,) that it has another class.
        bad_side: (N,) that a side, or more, lies elsewhere.
        duplicate: (N,) that another annotation is of the same object.
        z: (N, 4) how far each side lies from the object's, in standard deviations; 0 where there
            is no object.
        sides: (N, 4) whether a side is suspect.
        others: (N,) which object shows another class there best, -1: none.
        twins: (N,) the annotation of the same class that overlaps it most, -1: none.
        is_second: (N,) of the two, whether it is the one that fits less.
    """

    missing: np.ndarray
    spurious: np.ndarray
    wrong_class: np.ndarray
    bad_side: np.ndarray
    duplicate: np.ndarray
    z: np.ndarray
    sides: np.ndarray
    others: np.ndarray
    twins: np.ndarray
    is_second: np.ndarray


def side_errors(
    annotated: Annotated, objects: Objects, matched: Matched
) -> tuple[np.ndarray, np.ndarray]:
    """What standard deviations are calibrated on: sides of matches that are sure.

    Returns:
        (T, 4) |annotation - object|, pixels, and (T, 4) their standard deviations; of a detector
        without, the extent of the object (width or height) in their place.
    """
    rows = np.flatnonzero(matched.objects >= 0)
    columns = matched.objects[rows]
    sure = (matched.ious[rows, columns] >= 0.5) & (objects.scores[columns] >= 0.3)
    rows, columns = rows[sure], columns[sure]
    errors = np.abs(annotated.boxes[rows] - objects.boxes[columns])
    stds = _extents(objects.boxes) if objects.stds is None else objects.stds
    return errors, stds[columns]


def std_scale(errors: Iterable[np.ndarray], stds: Iterable[np.ndarray]) -> float | None:
    """The factor of standard deviations with which the median |z| is that of a normal distribution.
    The median does not see the mistakes, as long as most annotations are right.

    Args:
        errors, stds: of all images, see :func:`side_errors`.

    Returns:
        None if there are too few matches to tell.
    """
    all_errors = np.concatenate([np.zeros((0, 4)), *errors])
    all_stds = np.concatenate([np.zeros((0, 4)), *stds])
    if len(all_errors) < FEWEST:
        return None
    median = float(np.median(all_errors / np.maximum(all_stds, 1e-6)))
    return median / _NORMAL_MEDIAN or None


def judge(
    annotated: Annotated,
    objects: Objects,
    matched: Matched,
    scale: float | None,
    crowds: np.ndarray | None = None,
) -> Judged:
    """Scores what may be wrong in an image.

    Args:
        annotated: its annotations.
        objects: what the detector sees.
        matched: which belong together.
        scale: of :func:`std_scale`; None: standard deviations as they are, or a tenth of the
            extent where there are none.
        crowds: (L, 4) regions in which nothing is missing.
    """
    stds = _stds(objects, scale)
    z, sides, bad_side = _bad_sides(annotated, objects, matched, stds)
    wrong_class, others = _wrong_classes(annotated, objects, matched.ious)
    duplicate, twins, is_second = _duplicates(annotated, objects, matched)
    # IoU squared: the detection of a neighbour that touches the box is little support for it.
    support = (objects.scores * matched.ious**2).max(axis=1, initial=0)
    return Judged(
        _missing(objects, matched, stds, crowds),
        np.clip(1 - support, 0, 1) ** UNSUPPORTED,
        wrong_class,
        bad_side,
        duplicate,
        z,
        sides,
        others,
        twins,
        is_second,
    )


def _extents(boxes: np.ndarray) -> np.ndarray:
    """(H, 4) width or height, for the sides."""
    return np.tile(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3), 2)


def _stds(objects: Objects, scale: float | None) -> np.ndarray:
    """(H, 4) calibrated standard deviations, pixels."""
    if objects.stds is None:
        return _extents(objects.boxes) * (0.1 if scale is None else scale)
    return objects.stds * (1.0 if scale is None else scale)


def _missing(
    objects: Objects, matched: Matched, stds: np.ndarray, crowds: np.ndarray | None
) -> np.ndarray:
    """Sure of its class and of its sides, far from any annotation, and further from its own."""
    rows = np.flatnonzero(matched.objects >= 0)
    own = np.zeros(len(objects.boxes))
    own[matched.objects[rows]] = matched.ious[rows, matched.objects[rows]]
    away = (1 - matched.ious.max(axis=0, initial=0)) * (1 - own)
    widths = (stds / _extents(objects.boxes)).mean(axis=1)
    ret = objects.scores * np.exp(-widths / SHARP) * np.clip(away, 0, 1)
    if crowds is not None and len(crowds):
        ret = np.where(_covered(objects.boxes, crowds).max(axis=1) > 0.5, 0, ret)
    return ret


def _covered(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(H, L) which part of a box another one covers."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    return np.clip(high - low, 0, None).prod(axis=2) / np.maximum(areas, 1e-9)[:, None]


def _wrong_classes(
    annotated: Annotated, objects: Objects, ious: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best support for another class, against the best for the annotated one."""
    count, size = ious.shape
    if not size:
        return np.zeros(count), np.full(count, -1)
    own = objects.class_scores[:, annotated.classes].T
    order = np.argsort(-objects.class_scores, axis=1, kind="stable")[:, :2]
    top = np.take_along_axis(objects.class_scores, order, axis=1)
    is_own = order[:, 0] == annotated.classes[:, None]
    second = top[:, 1] if top.shape[1] > 1 else np.zeros(size)
    other = np.where(is_own, second, top[:, 0]) * ious
    margin = other.max(axis=1) - (own * ious).max(axis=1)
    found = np.where(other.max(axis=1) > 0, other.argmax(axis=1), -1)
    return np.where(found >= 0, ((1 + margin) / 2) ** OTHER_CLASS, 0), found


def _bad_sides(
    annotated: Annotated, objects: Objects, matched: Matched, stds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z and which are suspect, both (N, 4), and the scores (N,)."""
    count = len(annotated.boxes)
    z, score = np.zeros((count, 4)), np.zeros(count)
    rows = np.flatnonzero(matched.objects >= 0)
    columns = matched.objects[rows]
    boxes = objects.boxes[columns]
    widths = np.hypot(stds[columns], NOISE * _extents(boxes))
    z[rows] = (annotated.boxes[rows] - boxes) / widths
    surprise = z**2 / (z**2 + SURPRISING**2)
    worst = surprise[rows].argmax(axis=1)
    weight = objects.scores[columns] ** 0.25
    # A slip moves a side. Where other sides differ too, the two may be different things.
    weight *= _ious_without(annotated.boxes[rows], boxes, worst) ** 2
    # A side behind another object is a guess, of the annotator or of the detector.
    weight *= 1 - _hidden(annotated.boxes, rows, boxes, worst) / 2
    score[rows] = (surprise[rows].max(axis=1, initial=0) * weight) ** OFF
    largest = surprise.max(axis=1, keepdims=True, initial=0)
    sides = (surprise >= 0.5 * largest) & (largest > 0)
    return z, sides, score


def _ious_without(boxes: np.ndarray, others: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """(T,) IoU of pairs of boxes, if the boxes had one side (T,) of the others'."""
    boxes, rows = boxes.copy(), np.arange(len(boxes))
    boxes[rows, sides] = others[rows, sides]
    common = np.minimum(boxes, others)[:, 2:] - np.maximum(boxes, others)[:, :2]
    both = np.clip(common, 0, None).prod(axis=1)
    areas = [np.clip(x[:, 2:] - x[:, :2], 0, None).prod(axis=1) for x in (boxes, others)]
    return both / np.maximum(areas[0] + areas[1] - both, 1e-9)


def _hidden(
    annotations: np.ndarray, rows: np.ndarray, boxes: np.ndarray, sides: np.ndarray
) -> np.ndarray:
    """(T,) which part of the strip between a side of an annotation and of its object (T, 4) lies in
    one other annotation."""
    strips, pairs = annotations[rows].copy(), np.arange(len(rows))
    ends = np.sort([strips[pairs, sides], boxes[pairs, sides]], axis=0)
    strips[pairs, sides % 2], strips[pairs, sides % 2 + 2] = ends
    covered = _covered(strips, annotations)
    covered[pairs, rows] = 0
    return covered.max(axis=1, initial=0)


def _duplicates(
    annotated: Annotated, objects: Objects, matched: Matched
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scores (N,), the twin of each annotation, and whether it is the second of the two."""
    count = len(annotated.boxes)
    overlap = pairwise_iou(annotated.boxes, annotated.boxes)
    overlap *= annotated.classes[:, None] == annotated.classes
    np.fill_diagonal(overlap, 0)
    support = np.zeros(count)
    rows = np.flatnonzero(matched.objects >= 0)
    columns = matched.objects[rows]
    support[rows] = objects.scores[columns] * matched.ious[rows, columns]
    largest = overlap.max(axis=1, initial=0)
    twins = np.where(largest > 0, overlap.argmax(axis=1) if count else 0, -1)
    of_twin = support[twins] if count else support
    # One object explains both if one of them has none of its own.
    alone = 1 - np.minimum(support, of_twin)
    is_second = (support < of_twin) | ((support == of_twin) & (np.arange(count) > twins))
    score = np.clip((largest - 0.4) / 0.4, 0, 1) * alone * np.where(is_second, 1, 0.5)
    return score, twins, is_second & (twins >= 0)
