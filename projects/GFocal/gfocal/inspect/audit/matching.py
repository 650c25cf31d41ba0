"""Which annotation and which detected object are one thing.

N annotations, M detections, H detected objects of an image; K classes. Boxes are XYXY, pixels.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

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
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    union = _areas(boxes)[:, None] + _areas(others)[None] - common
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
    same = pairwise_iou(boxes, boxes) >= SAME_OBJECT
    is_free = np.ones(len(order), bool)
    leaders: list[int] = []
    rows = []
    for index in range(len(order)):
        if not is_free[index]:
            continue
        members = np.flatnonzero(same[index] & is_free)
        members = members if len(members) else np.array([index])  # a box without area
        is_free[members] = False
        row = np.zeros(num_classes)
        np.maximum.at(row, classes[members], detected.scores[order[members]])
        leaders.append(index)
        rows.append(row)
    first = order[leaders] if leaders else np.zeros(0, int)
    stds = None if detected.stds is None else detected.stds[first]
    return Objects(detected.boxes[first], np.reshape(rows, (-1, num_classes)), stds, first)


def match(annotated: Annotated, objects: Objects) -> Matched:
    """The pairs whose sum of IoU times score is largest. Half of the score is that of the annotated
    class, half that of the best: an annotation of a wrong class finds its object too.

    Each part of the image where boxes touch is a problem of its own, so hundreds of boxes are no
    large one.
    """
    ious = pairwise_iou(annotated.boxes, objects.boxes)
    own = objects.class_scores[:, annotated.classes].T
    gains = np.where(ious >= LEAST_IOU, ious * (own + objects.scores) / 2, 0)
    count = len(annotated.boxes)
    rows, columns = np.nonzero(gains)
    size = count + len(objects.boxes)
    graph = csr_array((np.ones(len(rows)), (rows, count + columns)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    found = np.full(count, -1)
    order = np.argsort(labels, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        left, right = part[part < count], part[part >= count] - count
        if len(left) and len(right):
            chosen = linear_sum_assignment(gains[np.ix_(left, right)], maximize=True)
            pairs = left[chosen[0]], right[chosen[1]]
            found[pairs[0]] = np.where(gains[pairs] > 0, pairs[1], -1)
    return Matched(ious, found)
