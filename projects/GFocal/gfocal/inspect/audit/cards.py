"""The pictures of findings for audit.html. Boxes are XYXY, pixels of the image."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ...data.images import read_image
from ...data.sides import unpack_sides
from ..page import PageBox, PageFinding, PageItem
from .auditing import Audit
from .findings import Finding
from .labels import to_xyxy

__all__ = ["page_items", "surest"]

LONGEST = 320  # of a picture, pixels
MARGIN = 0.6  # around the boxes, of their larger extent
LEAST_MARGIN = 16  # pixels of the image
LARGEST_SCALE = 4.0


def surest(findings: Sequence[Finding], limit: int) -> list[Finding]:
    """At most so many findings: the surest of each kind, then the second of each, and so on. Scores
    of different kinds do not compare, and on some datasets one kind would fill the page.

    Args:
        findings: the surest first.
        limit: how many.

    Returns:
        them, in the order of ``findings``.
    """
    places: dict[int, tuple[int, int]] = {}
    counts: dict[str, int] = {}
    for index, finding in enumerate(findings):
        rank = counts[finding.kind] = counts.get(finding.kind, 0) + 1
        places[index] = (rank, index)
    chosen = sorted(sorted(places, key=places.__getitem__)[:limit])
    return [findings[index] for index in chosen]


def page_items(
    audit: Audit,
    findings: Sequence[Finding],
    path_of: Callable[[Any], str],
) -> Iterator[PageItem]:
    """A picture of each finding: the part of the image around it, the annotation, the suggestion
    and the detection with the distributions of its sides.

    Args:
        audit: of which they are.
        findings: in the order of the page.
        path_of: image id -> file.

    Raises:
        OSError, ValueError: an image cannot be read any more.
    """
    for finding in findings:
        boxes = _boxes(audit, finding)
        picture, origin, scale = _cut(read_image(path_of(finding.image_id), "RGB"), boxes)
        told = PageFinding(
            id=finding.id,
            kind=finding.kind,
            score=finding.score,
            class_name=finding.name,
            text=finding.text,
            sides=tuple(finding.sides),
        )
        yield PageItem(picture, origin, scale, finding.file_name, boxes, told)


def _boxes(audit: Audit, finding: Finding) -> list[PageBox]:
    ret = []
    if finding.bbox is not None:
        ret.append(PageBox(to_xyxy([finding.bbox])[0], "annotation", finding.name))
    if finding.other_annotation_id is not None:
        other = audit.labels.record(finding.image_id, finding.other_annotation_id)
        ret.append(PageBox(to_xyxy([other["bbox"]])[0], "annotation", finding.name))
    if finding.suggested_bbox is not None or finding.suggested_category is not None:
        box = to_xyxy([finding.suggested_bbox or finding.bbox or []])[0]
        name = finding.suggested_category or finding.name
        ret.append(PageBox(box, "suggestion", name))
    if finding.object >= 0:
        ret.append(_detection(audit, finding))
    return ret


def _detection(audit: Audit, finding: Finding) -> PageBox:
    seen, h = audit.seen(finding.image_id), finding.object
    more: dict[str, Any] = {}
    if seen.objects.stds is not None:
        more["stds"] = seen.objects.stds[h]
    if h in seen.sides and seen.bins is not None:
        sides = unpack_sides(seen.sides[h], seen.bins)
        more.update(probabilities=sides.probabilities, bin_edges=sides.bin_edges)
    name = audit.labels.names[int(seen.objects.class_scores[h].argmax())]
    score = float(seen.objects.scores[h])
    return PageBox(seen.objects.boxes[h], "prediction", name, score, **more)


def _cut(
    image: np.ndarray, boxes: Sequence[PageBox]
) -> tuple[np.ndarray, tuple[float, float], float]:
    """The part of an image around boxes, its place, and picture px per image px."""
    height, width = image.shape[:2]
    corners = np.array([box.bbox for box in boxes], float)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    margin = max(MARGIN * float((high - low).max()), LEAST_MARGIN)
    # At least a pixel, even of a box that lies outside.
    x0, y0 = (int(x) for x in np.clip(low - margin, 0, [width - 1, height - 1]))
    x1, y1 = (int(x) for x in np.clip(np.ceil(high + margin), [x0 + 1, y0 + 1], [width, height]))
    part = image[y0:y1, x0:x1]
    scale = min(LONGEST / max(part.shape[:2]), LARGEST_SCALE)
    size = (max(round((x1 - x0) * scale), 1), max(round((y1 - y0) * scale), 1))
    picture = Image.fromarray(part).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(picture), (float(x0), float(y0)), scale
