"""The annotations to audit: a COCO json, read once, kept whole for the copy that is written later.

Boxes are XYXY, pixels, unless a name says XYWH.
"""

import json
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...data.messages import absolute_path
from .matching import Annotated

__all__ = ["Labels", "read_labels", "to_xywh", "to_xyxy"]

_NUMBER = (int, float)


class Labels(NamedTuple):
    """What a json annotates.

    Attributes:
        path: of the json.
        document: all of it, as it stands in the file.
        files: file name of each image, by id.
        category_ids: in ascending order: the position is the class.
        names: of the classes.
        rows: of each image that has some, places of its annotations in the document's list; crowds
            are not among them.
        crowds: (L, 4) boxes of the crowds of an image that has some.
    """

    path: str
    document: dict[str, Any]
    files: dict[Any, str]
    category_ids: list[int]
    names: list[str]
    rows: dict[Any, list[int]]
    crowds: dict[Any, np.ndarray]

    def records(self, image_id: Any) -> list[dict[str, Any]]:
        """The annotations of an image, as in the document, without crowds."""
        return [self.document["annotations"][row] for row in self.rows.get(image_id, [])]

    def record(self, image_id: Any, annotation_id: Any) -> dict[str, Any]:
        """The one with an id."""
        return next(x for x in self.records(image_id) if x["id"] == annotation_id)

    def annotated(self, image_id: Any) -> Annotated:
        """The annotations of an image, without crowds."""
        records = self.records(image_id)
        number = {category: index for index, category in enumerate(self.category_ids)}
        classes = [number[record["category_id"]] for record in records]
        return Annotated(to_xyxy([x["bbox"] for x in records]), np.array(classes, int))


def to_xyxy(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """(N, 4) XYXY of N boxes XYWH."""
    ret = np.array(boxes, float).reshape(-1, 4)
    ret[:, 2:] += ret[:, :2]
    return ret


def to_xywh(box: np.ndarray) -> list[float]:
    """XYWH of a box (4,) XYXY, to 0.01 pixels."""
    x0, y0, x1, y1 = (float(x) for x in box)
    return [round(x, 2) for x in (x0, y0, x1 - x0, y1 - y0)]


def read_labels(path: str) -> Labels:
    """Reads the annotations of a json in COCO format.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such json, or an annotation that nothing can be said of: without an id of its
            own, of an unknown image or category, or whose box is not four finite
            numbers, or has a width or height below 0.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no json {absolute_path(path)!r}")
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except ValueError as error:
        raise ValueError(f"{path} is no json ({error})") from error
    for name in ("images", "annotations", "categories"):
        found = document.get(name) if isinstance(document, dict) else None
        if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
            raise ValueError(
                f'{path} has no list "{name}"; an audit needs annotations in COCO format'
            )
    files = {image.get("id"): str(image.get("file_name")) for image in document["images"]}
    names = {x.get("id"): str(x.get("name")) for x in document["categories"]}
    rows: dict[Any, list[int]] = {}
    crowds: dict[Any, list[Any]] = {}
    ids: set[Any] = set()
    for row, record in enumerate(document["annotations"]):
        if problem := _problem(record, ids, files, names):
            raise ValueError(f"{path}: annotation {row} of the list {problem}; see gfocal check")
        ids.add(record["id"])
        if record.get("iscrowd"):
            crowds.setdefault(record["image_id"], []).append(record["bbox"])
        else:
            rows.setdefault(record["image_id"], []).append(row)
    categories = sorted(names)
    return Labels(
        path,
        document,
        files,
        categories,
        [names[x] for x in categories],
        rows,
        {image: to_xyxy(boxes) for image, boxes in crowds.items()},
    )


def _problem(
    record: dict[str, Any], ids: set[Any], files: dict[Any, str], names: dict[Any, str]
) -> str:
    """What is wrong with an annotation; "" if nothing is."""
    if not isinstance(record.get("id"), (int, str)):
        return f"has the id {record.get('id')!r}; expected a number of its own"
    if record["id"] in ids:
        return f"has the id {record['id']!r}, as another one has"
    for key, known in (("image_id", files), ("category_id", names)):
        if not isinstance(record.get(key), (int, str)) or record[key] not in known:
            what = key.removesuffix("_id")
            return f"(id {record['id']!r}) has the {key} {record.get(key)!r}, and no {what} has it"
    box = record.get("bbox")
    if not (
        isinstance(box, list)
        and len(box) == 4
        and all(type(x) in _NUMBER and math.isfinite(x) for x in box)
        and min(box[2:]) >= 0
    ):
        return (
            f"(id {record['id']!r}) has the bbox {box!r}; expected x, y, width and height in pixels"
        )
    return ""
