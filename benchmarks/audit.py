"""How well an audit finds the mistakes of :mod:`.injection`, beside simpler ways and ObjectLab.

N annotations, M detections, H detected objects of an image. Boxes are XYXY, pixels. A score is the
higher the likelier a mistake.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from .injection import KINDS

__all__ = ["METHODS", "AuditedImage", "Row", "iou_alone", "measure", "object_lab", "score_alone"]

TOP = 100  # of precision@100
SURE = 0.3  # a detection that may accuse a class
HIGH = 0.5  # ObjectLab's 0.95 leaves no detection of a detector whose scores are expected IoUs
Scores = Mapping[str, list[np.ndarray]]  # of each kind and image: (N,), "missing": (H,)


class AuditedImage(NamedTuple):
    """An image with mistakes, and what a detector found.

    Attributes:
        id: of the image.
        annotation_ids: of its N annotations.
        boxes, classes: (N, 4), (N,).
        found_boxes, found_classes, found_scores: (M, 4), (M,), (M,), the best first.
        objects: (H,) which detections are judged as objects without an annotation: the best of each
            place.
    """

    id: Any
    annotation_ids: list[Any]
    boxes: np.ndarray
    classes: np.ndarray
    found_boxes: np.ndarray
    found_classes: np.ndarray
    found_scores: np.ndarray
    objects: np.ndarray


class Row(NamedTuple):
    """How well a method finds a kind.

    Attributes:
        auroc: probability that a mistake scores higher than what is right.
        precision: part of the 100 highest scores that are mistakes.
        positives: how many mistakes there are.
    """

    auroc: float
    precision: float
    positives: int


def measure(
    images: Sequence[AuditedImage], truth: Sequence[Mapping[str, Any]], scores: Scores
) -> dict[str, Row]:
    """Judges scores.

    Of "missing" the objects are judged: a mistake is the best one with IoU of at least 0.5 with a
    dropped box; others there, and those on other mistakes, don't count. Of other kinds the
    annotations are judged: those that are right, and the mistakes of the kind. Of a duplicate, its
    original does not count: either may be called the second.

    Args:
        images: all.
        truth: the mistakes, fields of :class:`.injection.Injected`.
        scores: of a method; kinds may be absent.
    """
    labels = _labels(images, truth)
    ret = {}
    for kind in KINDS:
        if kind in scores:
            label = np.concatenate(labels[kind])
            score = np.concatenate([np.nan_to_num(x, nan=-1.0) for x in scores[kind]])
            ret[kind] = _row(label[label >= 0], score[label >= 0])
    return ret


def _row(labels: np.ndarray, scores: np.ndarray) -> Row:
    positives = int(labels.sum())
    negatives = len(labels) - positives
    ranks = rankdata(scores)[labels == 1].sum()
    area = (ranks - positives * (positives + 1) / 2) / max(positives * negatives, 1)
    # Of equal scores, mistakes count as if they came in any order.
    order = np.argsort(-scores, kind="stable")
    last = scores[order[:TOP]][-1]
    above, ties = labels[scores > last], labels[scores == last]
    hits = above.sum() + ties.mean() * (min(TOP, len(scores)) - len(above))
    return Row(float(area), float(hits / min(TOP, len(scores))), positives)


def _labels(
    images: Sequence[AuditedImage], truth: Sequence[Mapping[str, Any]]
) -> dict[str, list[np.ndarray]]:
    """1: a mistake of the kind, 0: none, -1: does not count."""
    of_image: dict[Any, list[Mapping[str, Any]]] = {}
    for x in truth:
        of_image.setdefault(x["image_id"], []).append(x)
    labels: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for image in images:
        wrong = of_image.get(image.id, [])
        kinds = np.array([""] * len(image.boxes), object)
        place = {key: index for index, key in enumerate(image.annotation_ids)}
        for x in wrong:
            if x["annotation_id"] in place:
                kinds[place[x["annotation_id"]]] = x["kind"]
        for index in np.flatnonzero(kinds == "duplicate"):
            same = np.where(kinds == "", _ious(image.boxes[index : index + 1], image.boxes)[0], 0)
            kinds[same.argmax()] = "original" if same.max() > 0 else kinds[same.argmax()]
        for kind in KINDS:
            if kind == "missing":
                labels[kind].append(_labels_of_objects(image, wrong))
            else:
                labels[kind].append(np.select([kinds == kind, kinds == ""], [1, 0], -1))
    return labels


def _labels_of_objects(image: AuditedImage, wrong: list[Mapping[str, Any]]) -> np.ndarray:
    ret = np.zeros(len(image.objects), int)
    boxes = image.found_boxes[image.objects]
    for x in wrong:
        if x["bbox"] is None:
            continue
        left, top, width, height = x["bbox"]
        box = np.array([[left, top, left + width, top + height]])
        near = np.flatnonzero(_ious(box, boxes)[0] >= 0.5)
        free = near[ret[near] != 1]
        ret[free] = -1
        if x["kind"] == "missing" and len(near):
            ret[near[image.found_scores[image.objects[near]].argmax()]] = 1
    return ret


def iou_alone(images: Sequence[AuditedImage]) -> Scores:
    """How little an annotation overlaps a detection, or for a wrong class a sure one of its class;
    how much it overlaps another annotation of its class (duplicate); how little an object overlaps
    an annotation (missing)."""
    ret: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for x in images:
        ious = _ious(x.boxes, x.found_boxes)
        away = 1 - np.where(x.found_scores >= 0.05, ious, 0).max(axis=1, initial=0)
        ret["bad_side"].append(away)
        ret["spurious"].append(away)
        own = (x.classes[:, None] == x.found_classes) & (x.found_scores >= SURE)
        ret["wrong_class"].append(1 - np.where(own, ious, 0).max(axis=1, initial=0))
        among = _ious(x.boxes, x.boxes) * (x.classes[:, None] == x.classes)
        np.fill_diagonal(among, 0)
        ret["duplicate"].append(among.max(axis=1, initial=0))
        ret["missing"].append(1 - ious[:, x.objects].max(axis=0, initial=0))
    return ret


def score_alone(images: Sequence[AuditedImage]) -> Scores:
    """The score of an object (missing); how low the best score is at the place of an annotation
    (IoU of at least 0.5), or for a wrong class that of its class."""
    ret: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for x in images:
        there = np.where(_ious(x.boxes, x.found_boxes) >= 0.5, x.found_scores, 0)
        low = 1 - there.max(axis=1, initial=0)
        own = np.where(x.classes[:, None] == x.found_classes, there, 0)
        for kind in ("bad_side", "spurious", "duplicate"):
            ret[kind].append(low)
        ret["wrong_class"].append(1 - own.max(axis=1, initial=0))
        ret["missing"].append(x.found_scores[x.objects])
    return ret


def object_lab(images: Sequence[AuditedImage]) -> Scores:
    """Scores of cleanlab's ObjectLab for each box: overlooked (missing), badly located
    (bad_side), swapped (wrong_class). Its threshold of sure detections is 0.5 here: with its own
    of 0.95 it finds nothing missing in detections whose scores are expected IoUs.

    Raises:
        ImportError: cleanlab is not installed.
    """
    from cleanlab.object_detection import rank

    count = 1 + max(int(max([*x.classes, *x.found_classes], default=0)) for x in images)
    labels = [{"bboxes": x.boxes, "labels": x.classes} for x in images]
    # ObjectLab wants the detections class after class, and at least one in an image.
    orders = [np.argsort(x.found_classes, kind="stable") for x in images]
    rows = [np.column_stack([x.found_boxes, x.found_scores]) for x in images]
    found = [
        np.array([row[x.found_classes == k] for k in range(count)] + [None], object)[:-1]
        for x, row in zip(images, rows)
    ]
    given = {"labels": labels, "predictions": found}
    overlooked = rank.compute_overlooked_box_scores(**given, high_probability_threshold=HIGH)
    missing = []
    for x, order, score in zip(images, orders, overlooked):
        back = np.full(len(order), np.nan)
        back[order] = score
        missing.append(1 - back[x.objects])
    swapped = rank.compute_swap_box_scores(**given, high_probability_threshold=HIGH)
    located = [1 - np.asarray(x) for x in rank.compute_badloc_box_scores(**given)]
    return {
        "missing": missing,
        "bad_side": located,
        "wrong_class": [1 - np.asarray(x) for x in swapped],
    }


METHODS: dict[str, Callable[[Sequence[AuditedImage]], Scores]] = {
    "IoU alone": iou_alone,
    "score alone": score_alone,
    "ObjectLab": object_lab,
}


def _ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M) IoU of boxes XYXY."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(x[:, 2:] - x[:, :2]).prod(axis=1) for x in (boxes, others)]
    return common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-9)
