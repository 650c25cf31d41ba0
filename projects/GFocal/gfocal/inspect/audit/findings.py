"""Findings: what an audit tells a person, a sentence each.

Boxes of findings are XYWH, pixels, as in the json.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .judging import Judged
from .labels import Labels, to_xywh
from .matching import Annotated, Matched, Objects

__all__ = ["SIDES", "Finding", "findings_of"]

SIDES = ("left", "top", "right", "bottom")
_OUTWARDS = (-1, -1, 1, 1)


@dataclass
class Finding:
    """What may be wrong.

    Attributes:
        id: 1, 2, ... from the surest on.
        kind: "missing", "spurious", "wrong_class", "bad_side" or "duplicate".
        score: how sure it is, in [0, 1].
        image_id, file_name: of the image.
        annotation_id: of the annotation; None for a missing one.
        sides: which are bad, "left", "top", "right", "bottom".
        category: name of the annotation's; None for a missing one.
        other_annotation_id: of a duplicate, the annotation that is the first; else None.
        suggested_category: name of a better one, or of the one to add; else None.
        bbox: of the annotation.
        suggested_bbox: a better one, or the one to add; else None. A spurious or duplicate
            annotation has no suggestion but to be removed.
        text: one sentence.
        object: which of the detected objects of the image, -1: none.
    """

    id: int
    kind: str
    score: float
    image_id: Any
    file_name: str
    annotation_id: Any
    other_annotation_id: Any
    sides: list[str]
    category: str | None
    suggested_category: str | None
    bbox: list[float] | None
    suggested_bbox: list[float] | None
    text: str
    object: int

    @property
    def name(self) -> str:
        """The class: of the annotation, or of the one to add."""
        return self.category or self.suggested_category or ""


class _Image:
    """Makes the findings of an image."""

    def __init__(
        self,
        labels: Labels,
        image_id: Any,
        annotated: Annotated,
        objects: Objects,
        matched: Matched,
        judged: Judged,
    ):
        self.labels, self.image_id, self.annotated = labels, image_id, annotated
        self.objects, self.matched, self.judged = objects, matched, judged
        self.records = labels.records(image_id)

    def _name(self, index: int) -> str:
        return self.labels.names[self.annotated.classes[index]]

    def _finding(
        self, kind: str, score: float, index: int | None, text: str, of_object: int, **more: Any
    ) -> Finding:
        known: dict[str, Any] = {"annotation_id": None, "category": None, "bbox": None}
        if index is not None:
            record = self.records[index]
            known = {"annotation_id": record["id"], "bbox": list(record["bbox"])}
            known["category"] = self._name(index)
        nothing: dict[str, Any] = {
            "sides": [],
            "other_annotation_id": None,
            "suggested_category": None,
            "suggested_bbox": None,
        }
        return Finding(
            id=0,
            kind=kind,
            score=round(float(score), 4),
            image_id=self.image_id,
            file_name=self.labels.files[self.image_id],
            text=text,
            object=int(of_object),
            **known,
            **{**nothing, **more},
        )

    def missing(self, h: int) -> Finding:
        number = int(self.objects.class_scores[h].argmax())
        name, score = self.labels.names[number], self.objects.scores[h]
        near = self.matched.ious[:, h].max(initial=0)
        text = f"{name} is detected with score {score:.2f}, and no annotation "
        text += f"has more than IoU {near:.2f} with it." if near >= 0.005 else "touches it."
        box = to_xywh(self.objects.boxes[h])
        return self._finding(
            "missing", self.judged.missing[h], None, text, h, suggested_category=name,
            suggested_bbox=box,
        )  # fmt: skip

    def spurious(self, index: int) -> Finding:
        support = self.objects.scores * self.matched.ious[index] ** 2
        best = int(support.argmax()) if support.max(initial=0) > 0 else -1
        text = f"No detection supports this {self._name(index)}: " + (
            f"the nearest has score {self.objects.scores[best]:.2f} and IoU "
            f"{self.matched.ious[index, best]:.2f}."
            if best >= 0
            else "there is none near it."
        )
        return self._finding("spurious", self.judged.spurious[index], index, text, best)

    def wrong_class(self, index: int) -> Finding:
        h, own = int(self.judged.others[index]), int(self.annotated.classes[index])
        scores = self.objects.class_scores[h].copy()
        own_score, scores[own] = scores[own], -1
        other = self.labels.names[int(scores.argmax())]
        name = self._name(index)
        text = (
            f"Annotated as {name}, detected as {other} with score {scores.max():.2f} ({name} "
            f"there: {own_score:.2f})."
        )
        score = self.judged.wrong_class[index]
        return self._finding("wrong_class", score, index, text, h, suggested_category=other)

    def bad_side(self, index: int) -> Finding:
        h, sides = int(self.matched.objects[index]), np.flatnonzero(self.judged.sides[index])
        box = self.annotated.boxes[index].copy()
        shifts = box - self.objects.boxes[h]
        box[sides] = self.objects.boxes[h, sides]
        told = [
            f"{SIDES[s]} side lies {abs(shifts[s]):.0f} px too far "
            f"{'out' if shifts[s] * _OUTWARDS[s] > 0 else 'in'}"
            for s in sides
        ]
        by = np.abs(self.judged.z[index, sides]).max()
        text = f"The {', the '.join(told)}: {by:.0f} times what is uncertain."
        if self.objects.stds is None:
            text = f"The {', the '.join(told)}, judged by the detection."
        return self._finding(
            "bad_side", self.judged.bad_side[index], index, text, h,
            sides=[SIDES[s] for s in sides], suggested_bbox=to_xywh(box),
        )  # fmt: skip

    def duplicate(self, index: int) -> Finding:
        twin = self.records[int(self.judged.twins[index])]["id"]
        supports = self.objects.scores * self.matched.ious[index]
        best = int(supports.argmax()) if supports.max(initial=0) > 0 else -1
        text = (
            f"This {self._name(index)} and annotation {twin} overlap, and the "
            "detector sees no second object."
        )
        score = self.judged.duplicate[index]
        return self._finding("duplicate", score, index, text, best, other_annotation_id=twin)


def findings_of(
    labels: Labels,
    image_id: Any,
    annotated: Annotated,
    objects: Objects,
    matched: Matched,
    judged: Judged,
    least: float,
) -> Iterator[Finding]:
    """The findings of an image, with the id 0.

    Args:
        labels: of the dataset.
        image_id: of the image.
        annotated, objects, matched, judged: of the image.
        least: lowest score of a finding.
    """
    make = _Image(labels, image_id, annotated, objects, matched, judged)
    for h in np.flatnonzero(judged.missing >= least):
        yield make.missing(int(h))
    for index in range(len(annotated.boxes)):
        if judged.spurious[index] >= least:
            yield make.spurious(index)
        if judged.wrong_class[index] >= least and judged.others[index] >= 0:
            yield make.wrong_class(index)
        if judged.bad_side[index] >= least and judged.sides[index].any():
            yield make.bad_side(index)
        if judged.duplicate[index] >= least and judged.is_second[index]:
            yield make.duplicate(index)
