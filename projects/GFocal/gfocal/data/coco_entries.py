"""Which images and annotations of a COCO json are valid, and why the others are not.

Units: boxes are XYWH, in pixels.
"""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathManager

from .box_formats import box_suspicion
from .defects import Defects
from .headers import Header, read_headers
from .masks import mask_area, mask_defect
from .messages import absolute_path

__all__ = ["header_defect", "valid_annotations", "valid_images"]

_NOWHERE = {"width": np.nan, "height": np.nan}  # comparisons with nan are false
_LARGEST = sys.float_info.max  # json has larger numbers: 1e400 is inf, and an int has no limit


def valid_images(
    records: list[dict[str, Any]], image_root: str, defects: Defects, check: bool = True
) -> dict[Any, dict[str, Any]]:
    """The valid images by id. Looks into each folder once, not for each file.

    Args:
        records: the images of a json, with all fields, of the right types.
        image_root: the folder that the file names are relative to.
        defects: gets the images that are left out.
        check: also look at the headers of the files.
    """
    folders = {os.path.dirname(record["file_name"]) for record in records}
    files = {folder: _listing(os.path.join(image_root, folder)) for folder in folders}
    valid: dict[Any, dict[str, Any]] = {}
    for record in records:
        who = f"image {record['id']!r} ({record['file_name']})"
        folder, file = os.path.split(record["file_name"])
        size = (record["width"], record["height"])
        if record["id"] in valid:
            other = valid[record["id"]]["file_name"]
            defects.add("images", "duplicate id", f"{who}: {other} has the same id")
        elif not all(isinstance(x, (int, float)) and 0 < x <= _LARGEST for x in size):
            defects.add("images", "size not positive or finite", f"{who}: width, height are {size}")
        elif file not in files[folder]:
            defects.missing_file = True
            where = os.path.join(absolute_path(image_root), folder)
            defects.add("images", "without a file", f"{who}: no such file in {where}")
        else:
            valid[record["id"]] = record
    used = Counter(os.path.normpath(record["file_name"]) for record in valid.values())
    if repeated := [file for file, count in used.items() if count > 1]:
        defects.warnings.append(
            f"{len(repeated)} files are listed under several image ids, e.g. {repeated[0]}: an "
            "object that is labelled under one id is background under the other"
        )
    return _with_right_header(valid, image_root, defects) if check else valid


def _with_right_header(
    images: dict[Any, dict[str, Any]], image_root: str, defects: Defects
) -> dict[Any, dict[str, Any]]:
    paths = [os.path.join(image_root, record["file_name"]) for record in images.values()]
    valid, turned = {}, 0
    for (key, record), header in zip(images.items(), read_headers(paths)):
        found = header and header_defect(header, record["width"], record["height"])
        if found:
            who = f"image {key!r} ({record['file_name']})"
            defects.add("images", found[0], f"{who}: {found[1]}")
        else:
            valid[key] = record
            defects.modes.update([header.mode] if header is not None else [])
            turned += header is not None and 2 <= header.orientation <= 4
    if turned:
        defects.warnings.append(
            f"{turned} images are mirrored or turned by 180 degrees by their EXIF orientation, and "
            "are read so; their boxes must be those of the picture as a viewer shows it"
        )
    return valid


def header_defect(header: Header, width: float, height: float) -> tuple[str, str] | None:
    """What is wrong with an image file, as (reason, detail).

    Args:
        header: of the file.
        width, height: as the dataset says, in pixels.

    Returns:
        None if nothing is wrong.
    """
    if header.defect:
        return "unreadable", f"the file {header.defect}"
    expected, found = (width, height), header.upright_size
    if expected == found:
        return None
    sizes = f"width, height are {expected}, the file has {found}"
    if header.turned and expected == (header.width, header.height):
        detail = (
            f"{sizes} once its EXIF orientation {header.orientation} is applied, as it is when the "
            "image is read. The dataset describes the stored pixels. Either remove the tag "
            "(exiftool -Orientation= FILE), if the labels fit the stored pixels; or label the "
            "picture as viewers show it. Do not just exchange width and height: the boxes would "
            "be misplaced"
        )
        return "labelled as stored, but turned by EXIF", detail
    if expected == (found[1], found[0]):
        return "with width and height exchanged", sizes
    return "of another size than its file", sizes


def _listing(folder: str) -> set[str]:
    return set(PathManager.ls(folder)) if PathManager.isdir(folder) else set()


def valid_annotations(
    records: list[dict[str, Any]],
    images: dict[Any, dict[str, Any]],
    all_images: dict[Any, Any],
    categories: dict[int, str],
    defects: Defects,
    check: bool = True,
    masks: bool = False,
) -> list[dict[str, Any]]:
    """The valid annotations, completed. Vectorised over annotations.

    Args:
        records: the annotations of a json, with all fields, of the right types.
        images: the valid images by id.
        all_images: {id: file name} of all images, also of the invalid ones.
        categories: {id: name}.
        defects: gets the annotations that are left out, and what the boxes look like.
        check: also look whether the boxes have another format.
        masks: also look at the masks of objects, which all must have one.

    Returns:
        The valid ones, in the same order, in the form of :class:`gfocal.data.coco_json.CocoJson`.
    """
    boxes = _box_array([record["bbox"] for record in records])
    sizes = _sizes([images.get(record["image_id"], _NOWHERE) for record in records])
    if check:
        known = np.isfinite(boxes).all(axis=1) & np.isfinite(sizes).all(axis=1)
        if suspicion := box_suspicion(boxes[known], sizes[known], "XYWH"):
            (defects.errors if suspicion.is_error else defects.warnings).append(suspicion.text)
    bad = np.zeros(len(records), dtype=bool)
    # The first reason that applies is the one reported.
    reasons = _reasons(records, boxes, sizes, images, all_images, categories)
    if masks:
        reasons |= _mask_reasons(records, images)
    for reason, applies in reasons.items():
        mask = np.array(applies, dtype=bool) & ~bad
        for index in np.flatnonzero(mask):
            record = records[index]
            file = all_images.get(record["image_id"], "not in the json")
            defects.add(
                "annotations",
                reason,
                f"annotation {record.get('id')!r} of image {record['image_id']!r} ({file}), "
                f"category {record['category_id']!r}, bbox {record['bbox']}: {reason}",
            )
        bad |= mask
    return [
        {
            **record,
            "bbox": box,
            "area": _area(record, box, images, masks),
            "iscrowd": record.get("iscrowd") or 0,
        }
        for record, box, is_bad in zip(records, boxes.tolist(), bad.tolist())
        if not is_bad
    ]


def _reasons(
    records: list[dict[str, Any]],
    boxes: np.ndarray,
    sizes: np.ndarray,
    images: dict[Any, dict[str, Any]],
    all_images: dict[Any, Any],
    categories: dict[int, str],
) -> dict[str, Sequence[Any]]:
    """{reason: one truth value a record, whether it leaves it out}.

    boxes are (n, 4), sizes (n, 2): width and height.
    """
    width, height = sizes.T
    x, y, w, h = boxes.T
    with np.errstate(invalid="ignore", over="ignore"):
        outside = (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)
    return {
        "of an unknown image": [r["image_id"] not in all_images for r in records],
        "of a left out image": [r["image_id"] not in images for r in records],
        "with an unknown category": [r["category_id"] not in categories for r in records],
        "with a non-finite box": ~np.isfinite(boxes).all(axis=1),
        "with a degenerate box": (w <= 0) | (h <= 0),
        "with a box outside the image": outside,
        "with an area negative or not finite": [
            not 0 <= (r.get("area") or 0) <= _LARGEST for r in records
        ],
        "with an iscrowd not 0 or 1": [r.get("iscrowd") not in (None, 0, 1) for r in records],
        "flagged ignore": [r.get("ignore", 0) for r in records],
    }


def _area(
    record: dict[str, Any], box: list[float], images: dict[Any, dict[str, Any]], masks: bool
) -> float:
    """Of the json; else of the mask, where masks are asked for; else of the box."""
    if record.get("area") is not None:
        return record["area"]
    if masks and record.get("segmentation"):
        image = images[record["image_id"]]
        return mask_area(record["segmentation"], image["height"], image["width"])
    return box[2] * box[3]


def _mask_reasons(
    records: list[dict[str, Any]], images: dict[Any, dict[str, Any]]
) -> dict[str, Sequence[Any]]:
    """As :func:`_reasons`, of the masks; a crowd needs none."""
    found: list[str | None] = []
    for record in records:
        image, mask = images.get(record["image_id"]), record.get("segmentation")
        if image is None or (record.get("iscrowd") and not mask):
            found.append(None)
        else:
            found.append(mask_defect(mask, image["height"], image["width"]))
    return {reason: [x == reason for x in found] for reason in {*found} - {None} if reason}


def _sizes(owners: list[dict[str, Any]]) -> np.ndarray:
    """(n, 2) width and height of the image of each annotation; nan for none."""
    return np.array([(x["width"], x["height"]) for x in owners], dtype=np.float64).reshape(-1, 2)


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
