"""The audit of a dataset: images are added with their detections, then all are judged together."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from .findings import Finding, findings_of
from .judging import KINDS, Judged, judge, side_errors, std_scale
from .labels import Labels, to_xyxy
from .matching import Annotated, Detected, Matched, Objects, group, match

__all__ = ["LEAST_SCORE", "Audit", "Seen"]

LEAST_SCORE = 0.2  # of a finding


class Seen(NamedTuple):
    """An image and what the detector sees in it.

    Attributes:
        annotated: its annotations.
        objects: what the detector sees.
        matched: which belong together.
        sides: of an object that a finding may need, the distributions of
            :func:`gfocal.data.sides.pack_sides`.
        bins: of these.
    """

    annotated: Annotated
    objects: Objects
    matched: Matched
    sides: dict[int, Mapping[str, Any]]
    bins: list[float] | None


class Audit:
    """Compares the annotations of a dataset with what a detector finds that was not trained on
    them.

    Args:
        labels: of :func:`.labels.read_labels`.

    Examples:
        ```python
        audit = Audit(read_labels("instances.json"))
        for image_id, record in records:  # as predict_files gives them
            audit.add(image_id, record)
        print(audit.findings()[0].text)
        ```
    """

    def __init__(self, labels: Labels):
        self.labels = labels
        self._seen: dict[Any, Seen] = {}
        self._number = {category: n for n, category in enumerate(labels.category_ids)}

    def __len__(self) -> int:
        """How many images were added."""
        return len(self._seen)

    def add(self, image_id: Any, record: Mapping[str, Any]) -> None:
        """Adds an image.

        Args:
            image_id: of the json.
            record: "detections", a list of {"category_id", "bbox" XYWH, "score"} and, of a detector
                that has them, "bbox_std" and "sides"; with these also "bins". Low scores count too:
                they tell what the detector holds for possible.

        Raises:
            KeyError: a category that the json does not have.
        """
        found = record["detections"]
        has_stds = bool(found) and all("bbox_std" in x for x in found)
        stds = np.array([x["bbox_std"] for x in found], float) if has_stds else None
        detected = Detected(
            to_xyxy([x["bbox"] for x in found]),
            np.array([self._number[x["category_id"]] for x in found], int),
            np.array([x["score"] for x in found], float),
            stds,
        )
        annotated = self.labels.annotated(image_id)
        objects = group(detected, len(self.labels.category_ids))
        matched = match(annotated, objects)
        needed = (objects.scores >= LEAST_SCORE) | (matched.ious.max(axis=0, initial=0) > 0.3)
        sides = {
            int(h): found[objects.detections[h]]["sides"]
            for h in np.flatnonzero(needed)
            if "sides" in found[objects.detections[h]]
        }
        self._seen[image_id] = Seen(annotated, objects, matched, sides, record.get("bins"))

    def seen(self, image_id: Any) -> Seen:
        """What was added of an image."""
        return self._seen[image_id]

    @property
    def has_stds(self) -> bool:
        """Whether the detector has standard deviations."""
        return any(x.objects.stds is not None for x in self._seen.values())

    def std_scale(self) -> float | None:
        """See :func:`.judging.std_scale`, of all images."""
        pairs = [side_errors(x.annotated, x.objects, x.matched) for x in self._seen.values()]
        return std_scale((errors for errors, _ in pairs), (stds for _, stds in pairs))

    def judged(self) -> Iterator[tuple[Any, Judged]]:
        """The scores of all annotations and objects, also low ones, image after image."""
        scale = self.std_scale()
        for image_id, x in self._seen.items():
            crowds = self.labels.crowds.get(image_id)
            yield image_id, judge(x.annotated, x.objects, x.matched, scale, crowds)

    def findings(self, least: float = LEAST_SCORE) -> list[Finding]:
        """What may be wrong, the surest first.

        Args:
            least: lowest score.
        """
        found: list[Finding] = []
        for image_id, judged in self.judged():
            x = self._seen[image_id]
            found += findings_of(
                self.labels, image_id, x.annotated, x.objects, x.matched, judged, least
            )
        found.sort(key=lambda finding: -finding.score)
        for number, finding in enumerate(found, 1):
            finding.id = number
        return found

    def report(self, findings: list[Finding], settings: Mapping[str, Any]) -> dict[str, Any]:
        """audit.json: settings, how many findings of each kind, and the findings.

        Args:
            findings: of :meth:`findings`.
            settings: what else to tell of how they were made.
        """
        scale = self.std_scale()
        by = "standard deviations" if self.has_stds else "shares of the box's width and height"
        counts = Counter(finding.kind for finding in findings)
        return {
            "settings": {
                **settings,
                "num_images": len(self),
                "num_annotations": sum(len(x.annotated.boxes) for x in self._seen.values()),
                "bad_side_measured_in": by,
                "std_scale": None if scale is None else round(scale, 5),
            },
            "counts": {kind: counts[kind] for kind in KINDS},
            "findings": [_plain(finding) for finding in findings],
        }


def _plain(finding: Finding) -> dict[str, Any]:
    ret = asdict(finding)
    del ret["object"]
    return ret
