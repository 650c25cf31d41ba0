"""Which images and annotations of a COCO json are valid, and why the others are not.

Units: boxes are XYWH, in pixels.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathManager

from .messages import absolute_path

__all__ = ["Invalid", "valid_annotations", "valid_images"]

_SHOWN = 5  # examples in an error message
_LARGEST = sys.float_info.max  # json has larger numbers: 1e400 is inf, and an int has no limit


class Invalid:
    """Collects the invalid entries of one json, by reason."""

    def __init__(self, json_file: str):
        self.json_file = json_file
        self.counts: dict[str, dict[str, int]] = {"images": {}, "annotations": {}}
        self.examples: list[str] = []
        self.missing_file = False

    def add(self, kind: str, reason: str, example: str) -> None:
        counts = self.counts[kind]
        counts[reason] = counts.get(reason, 0) + 1
        if len(self.examples) < _SHOWN:
            self.examples.append(example)

    def finish(self, on_invalid: str, num_images: int, num_annotations: int) -> None:
        """Raises or logs, if there were any."""
        total = sum(sum(counts.values()) for counts in self.counts.values())
        if not total:
            return
        parts = []
        for kind, number in (("images", num_images), ("annotations", num_annotations)):
            if self.counts[kind]:
                reasons = ", ".join(f"{n} {reason}" for reason, n in self.counts[kind].items())
                parts.append(f"{sum(self.counts[kind].values())} of {number} {kind} ({reasons})")
        summary = " and ".join(parts)
        if on_invalid == "drop":
            logging.getLogger(__name__).warning(f"{self.json_file}: dropped {summary}")
            return
        lines = [f"{self.json_file}: invalid: {summary}"]
        lines += [f"  {example}" for example in self.examples]
        if total > len(self.examples):
            lines.append(f"  ... and {total - len(self.examples)} more")
        lines.append('on_invalid="drop" (in custom_coco.py data.on_invalid=drop) leaves them out')
        raise (FileNotFoundError if self.missing_file else ValueError)("\n".join(lines))


def valid_images(
    records: list[dict[str, Any]], image_root: str, invalid: Invalid
) -> dict[Any, dict[str, Any]]:
    """The valid images by id. Looks into each folder once, not for each file.

    Args:
        records: the images of a json, with all fields, of the right types.
        image_root: the folder that the file names are relative to.
        invalid: gets the images that are left out.
    """
    folders = {os.path.dirname(record["file_name"]) for record in records}
    files = {folder: _listing(os.path.join(image_root, folder)) for folder in folders}
    valid: dict[Any, dict[str, Any]] = {}
    for record in records:
        who = f"image {record['id']} ({record['file_name']})"
        folder, file = os.path.split(record["file_name"])
        size = (record["width"], record["height"])
        if record["id"] in valid:
            other = valid[record["id"]]["file_name"]
            invalid.add("images", "duplicate id", f"{who}: {other} has the same id")
        elif not all(isinstance(x, (int, float)) and 0 < x <= _LARGEST for x in size):
            invalid.add("images", "size not positive or finite", f"{who}: width, height are {size}")
        elif file not in files[folder]:
            invalid.missing_file = True
            where = os.path.join(absolute_path(image_root), folder)
            invalid.add("images", "without a file", f"{who}: no such file in {where}")
        else:
            valid[record["id"]] = record
    return valid


def _listing(folder: str) -> set[str]:
    return set(PathManager.ls(folder)) if PathManager.isdir(folder) else set()


def valid_annotations(
    records: list[dict[str, Any]],
    images: dict[Any, dict[str, Any]],
    all_image_ids: set[Any],
    categories: dict[int, str],
    invalid: Invalid,
) -> list[dict[str, Any]]:
    """The valid annotations, completed. Vectorised over annotations.

    Args:
        records: the annotations of a json, with all fields, of the right types.
        images: the valid images by id.
        all_image_ids: ids of all images, also of the invalid ones.
        categories: {id: name}.
        invalid: gets the annotations that are left out.

    Returns:
        The valid ones, in the same order, in the form of :class:`gfocal.data.coco_json.CocoJson`.
    """
    boxes = _box_array([record["bbox"] for record in records])
    bad = np.zeros(len(records), dtype=bool)
    # The first reason that applies is the one reported.
    for reason, applies in _reasons(records, boxes, images, all_image_ids, categories).items():
        mask = np.array(applies, dtype=bool) & ~bad
        for index in np.flatnonzero(mask):
            record = records[index]
            file = images.get(record["image_id"], {}).get("file_name", "no file")
            invalid.add(
                "annotations",
                reason,
                f"annotation {record['id']} of image {record['image_id']} ({file}), category "
                f"{record['category_id']}, bbox {record['bbox']}: {reason}",
            )
        bad |= mask
    return [
        {
            **record,
            "bbox": box,
            "area": box[2] * box[3] if record.get("area") is None else record["area"],
            "iscrowd": record.get("iscrowd") or 0,
        }
        for record, box, is_bad in zip(records, boxes.tolist(), bad.tolist())
        if not is_bad
    ]


def _reasons(
    records: list[dict[str, Any]],
    boxes: np.ndarray,
    images: dict[Any, dict[str, Any]],
    all_image_ids: set[Any],
    categories: dict[int, str],
) -> dict[str, Sequence[Any]]:
    """{reason: one truth value a record, whether it leaves it out}; boxes are (n, 4)."""
    nowhere = {"width": np.nan, "height": np.nan}  # comparisons with nan are false
    owners = [images.get(record["image_id"], nowhere) for record in records]
    width = np.array([owner["width"] for owner in owners], dtype=np.float64)
    height = np.array([owner["height"] for owner in owners], dtype=np.float64)
    x, y, w, h = boxes.T
    with np.errstate(invalid="ignore", over="ignore"):
        outside = (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)
    return {
        "of an unknown image": [r["image_id"] not in all_image_ids for r in records],
        "of a left out image": [r["image_id"] not in images for r in records],
        "with an unknown category": [r["category_id"] not in categories for r in records],
        "with a non-finite box": ~np.isfinite(boxes).all(axis=1),
        "with a degenerate box": (w <= 0) | (h <= 0),
        "with a box outside the image": outside,
        "with the id of another": _repeated([r["id"] for r in records]),
        "with an area negative or not finite": [
            not 0 <= (r.get("area") or 0) <= _LARGEST for r in records
        ],
        "with an iscrowd not 0 or 1": [r.get("iscrowd") not in (None, 0, 1) for r in records],
        "flagged ignore": [r.get("ignore", 0) for r in records],
    }


def _repeated(ids: list[Any]) -> list[bool]:
    """For each of the ids whether it stands further up already."""
    seen: set[Any] = set()
    ret = []
    for value in ids:
        ret.append(value in seen)
        seen.add(value)
    return ret


def _box_array(rows: list[Any]) -> np.ndarray:
    """(n, 4) float64; nan for a row that is not four numbers."""
    try:
        boxes = np.array(rows, dtype=np.float64)
        if boxes.shape == (len(rows), 4):
            return boxes
    except (OverflowError, TypeError, ValueError):
        pass
    boxes = np.full((len(rows), 4), np.nan)
    for index, row in enumerate(rows):
        with contextlib.suppress(OverflowError, TypeError, ValueError):
            row = np.array(row, dtype=np.float64)
            if row.shape == (4,):
                boxes[index] = row
    return boxes
