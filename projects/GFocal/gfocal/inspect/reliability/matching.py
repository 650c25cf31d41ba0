"""Which detections are of which objects, and what each says of its sides.

T detections, G annotated boxes, M matched detections, C bins. Boxes are XYXY, in pixels of the
image as it is annotated. Sides are left, top, right, bottom.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Matched", "Objects", "Sides", "concatenated", "ious_of", "match"]


class Objects(NamedTuple):
    """The annotated boxes of one image.

    Attributes:
        boxes: (G, 4).
        classes: (G,) in 0..K-1.
        crowds: (G,) whether it is a crowd (COCO's "iscrowd").
        areas: (G,) pixels^2, as annotated; COCO's sizes are of these.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowds: np.ndarray
    areas: np.ndarray


class Sides(NamedTuple):
    """The sides of M matched detections.

    Attributes:
        errors: (M, 4) prediction minus truth, pixels.
        stds: (M, 4) standard deviations, pixels; None if the detector has none.
        probabilities: (M, 4, C) of the bins; None if the detector gave no distributions.
        bin_places: (M, 4, C) places of the bins, pixels minus the true side; None as well. So the
            truth is at 0.
    """

    errors: np.ndarray
    stds: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    bin_places: np.ndarray | None = None


class Matched(NamedTuple):
    """Detections beside the objects that they are of. Those of a crowd are not among them.

    Attributes:
        scores, classes: (T,).
        ious: (T,) IoU with the object; 0 where there is none.
        objects: (T,) index of the object among those of the image; -1 where there is none.
        areas: (T,) pixels^2, of the object; of the detected box where there is none.
        image_idxs: (T,) which image, by the order of :func:`concatenated`; 0 of one image.
        kept: (T,) index of the detection among those that were matched.
    """

    scores: np.ndarray
    classes: np.ndarray
    ious: np.ndarray
    objects: np.ndarray
    areas: np.ndarray
    image_idxs: np.ndarray
    kept: np.ndarray

    @property
    def is_true(self) -> np.ndarray:
        """(T,) whether it is a true positive."""
        return self.objects >= 0


def match(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, truth: Objects, threshold: float
) -> Matched:
    """Matches the detections of one image one to one with objects of their class.

    It is COCO's greedy rule, as in pycocotools. The detections choose in the order of their scores.
    Each takes the free object of the largest IoU, if that is at least the threshold. Without one,
    a detection of a crowd is neither right nor wrong: it is left out. (It is of a crowd if the part
    of it inside the crowd's box is at least the threshold.) Two differences: all detections count,
    not the best 100 of a class; and boxes that do not overlap are no match with a threshold of 0
    either.

    Args:
        boxes: (T, 4).
        scores, classes: (T,).
        truth: the objects.
        threshold: an IoU in [0, 1].

    Returns:
        The detections that are not of a crowd, best first.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, classes = boxes[order], classes[order]
    # With equal IoUs pycocotools takes the last object, argmax the first.
    last_first = np.flatnonzero(~truth.crowds)[::-1]
    ious = ious_of(boxes, truth.boxes[last_first])
    ious[(classes[:, None] != truth.classes[last_first]) | (ious < min(threshold, 1 - 1e-10))] = 0
    chosen = np.full(len(boxes), -1)
    best = np.zeros(len(boxes))
    for i in np.flatnonzero(ious.any(axis=1)):
        place = ious[i].argmax()
        if ious[i, place] > 0:
            chosen[i], best[i] = last_first[place], ious[i, place]
            ious[:, place] = 0
    keep = (chosen >= 0) | ~_of_crowds(boxes, classes, truth, threshold)
    chosen = chosen[keep]
    of_objects = truth.areas[chosen] if len(truth.areas) else np.zeros(len(chosen))
    return Matched(
        scores[order][keep],
        classes[keep],
        best[keep],
        chosen,
        np.where(chosen >= 0, of_objects, _areas(boxes[keep])),
        np.zeros(len(chosen), int),
        order[keep],
    )


def concatenated(parts: Sequence[Matched]) -> Matched:
    """The detections of several images as one; ``image_idxs`` tells the image."""
    columns = [np.concatenate(x) for x in zip(*parts)]
    ret = Matched(*columns)
    return ret._replace(image_idxs=np.repeat(np.arange(len(parts)), [len(x.scores) for x in parts]))


def ious_of(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(T, 4) and (G, 4) boxes -> (T, G) IoU of each pair; 0 for boxes without area."""
    overlaps = _overlaps(boxes, others)
    unions = _areas(boxes)[:, None] + _areas(others) - overlaps
    return overlaps / np.where(unions > 0, unions, 1)


def _of_crowds(
    boxes: np.ndarray, classes: np.ndarray, truth: Objects, threshold: float
) -> np.ndarray:
    """(T,) whether enough of a detection lies inside a crowd of its class."""
    crowds = truth.boxes[truth.crowds]
    areas = _areas(boxes)[:, None]
    parts = _overlaps(boxes, crowds) / np.where(areas > 0, areas, 1)
    of_class = classes[:, None] == truth.classes[truth.crowds]
    return ((parts >= min(threshold, 1 - 1e-10)) & (parts > 0) & of_class).any(axis=1)


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    return (high - low).clip(min=0).prod(axis=-1)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
