"""Which annotation and which detected object are one thing.

N annotations, M detections, H detected objects of an image; K classes. Boxes are XYXY, pixels.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

__all__ = ["Annotated", "Detected", "Matched", "Objects", "group", "match", "pairwise_iou"]

SAME_OBJECT = 0.6  # IoU from which detections of two classes are of one object
LEAST_IOU = 0.3  # of a match: a side that is off by half of the box leaves 0.5 or more


class Annotated(NamedTuple):
    """The annotations of an image.

    Attributes:
        boxes: (N, 4).
        classes: (N,) from 0 on.
    """

    boxes: np.ndarray
    classes: np.ndarray


class Detected(NamedTuple):
    """The detections of an image, after NMS.

    Attributes:
        boxes: (M, 4).
        classes: (M,) from 0 on.
        scores: (M,) in [0, 1].
        stds: (M, 4) standard deviations of the sides, pixels; None of a detector without.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    stds: np.ndarray | None = None


class Objects(NamedTuple):
    """What the detector sees: an object has a box, and a score for each class.

    Attributes:
        boxes: (H, 4) of its best detection.
        class_scores: (H, K) score of its best detection of a class, 0 where there is none.
        stds: (H, 4) pixels, or None.
        detections: (H,) index of its best detection.
    """

    boxes: np.ndarray
    class_scores: np.ndarray
    stds: np.ndarray | None
    detections: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """(H,) of the best class."""
        return self.class_scores.max(axis=1, initial=0)


class Matched(NamedTuple):
    """Annotations and objects, one to one.

    Attributes:
        ious: (N, H).
        objects: (N,) index of the object of an annotation, -1 where there is none.
    """

    ious: np.ndarray
    objects: np.ndarray


def pairwise_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M) IoU of (N, 4) and (M, 4) boxes; 0 for boxes without area."""
    common = np.ones((len(boxes), len(others)))
    for low, high in ((0, 2), (1, 3)):
        ends = np.minimum(boxes[:, None, high], others[:, high])
        common *= np.maximum(ends - np.maximum(boxes[:, None, low], others[:, low]), 0)
    union = _areas(boxes)[:, None] + _areas(others) - common
    return common / np.maximum(union, 1e-9)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)


def group(detected: Detected, num_classes: int) -> Objects:
    """The objects behind detections: one takes all detections of other classes at its place.

    Args:
        detected: of one class no two are of one object, which NMS has seen to.
        num_classes: K.
    """
    order = np.argsort(-detected.scores, kind="stable")
    boxes, classes = detected.boxes[order], detected.classes[order]
    leaders = np.arange(len(order))
    pairs = np.nonzero(np.triu(pairwise_iou(boxes, boxes) >= SAME_OBJECT, 1))
    for index, other in np.transpose(pairs).tolist():
        if leaders[index] == index and leaders[other] == other:
            leaders[other] = index
    best, numbers = np.unique(leaders, return_inverse=True)
    class_scores = np.zeros((len(best), num_classes))
    np.maximum.at(class_scores, (numbers, classes), detected.scores[order])
    first = order[best]
    stds = None if detected.stds is None else detected.stds[first]
    return Objects(detected.boxes[first], class_scores, stds, first)


def match(annotated: Annotated, objects: Objects) -> Matched:
    """The pairs whose sum of IoU times score is largest. Half of the score is that of the annotated
    class, half that of the best: an annotation of a wrong class finds its object too.
    """
    ious = pairwise_iou(annotated.boxes, objects.boxes)
    own = objects.class_scores[:, annotated.classes].T
    gains = np.where(ious >= LEAST_IOU, ious * (own + objects.scores) / 2, 0)
    # Of those that touch none, linear_sum_assignment need not know.
    left, right = np.flatnonzero(gains.any(axis=1)), np.flatnonzero(gains.any(axis=0))
    rows, columns = linear_sum_assignment(gains[np.ix_(left, right)], maximize=True)
    pairs = left[rows], right[columns]
    found = np.full(len(annotated.boxes), -1)
    found[pairs[0]] = np.where(gains[pairs] > 0, pairs[1], -1)
    return Matched(ious, found)
