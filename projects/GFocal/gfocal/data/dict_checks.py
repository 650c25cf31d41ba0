"""Checks of dataset dicts that nobody has checked: those of a DatasetCatalog function of one's own,
of Pascal VOC, or of Detectron2's ``load_coco_json``.

Units: boxes as their "bbox_mode" says, in pixels.
"""

import math
from collections import Counter
from collections.abc import Hashable
from numbers import Real
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from .box_formats import box_suspicion
from .coco_entries import header_defect
from .defects import Defects
from .headers import Header, read_headers
from .masks import mask_defect

__all__ = ["dict_defects"]

_MODES = {BoxMode.XYXY_ABS: "XYXY", BoxMode.XYWH_ABS: "XYWH"}
_Boxes = dict[str, list[tuple[list[float], tuple[float, float]]]]


def dict_defects(
    name: str,
    dicts: list[dict[str, Any]],
    num_classes: int | None,
    check: bool = True,
    masks: bool = False,
) -> Defects:
    """What is wrong with the dicts of a dataset.

    A field of a wrong type; an image of another size than its file, or that cannot be read; an
    annotation without box, with a box that is not finite or has a negative side, or of a class that
    is not there. Boxes without area or outside their images, and repeated images, are warnings:
    COCO has such boxes, and a repetition may be wanted.

    Args:
        name: the dataset's name.
        dicts: Detectron2's dataset dicts.
        num_classes: number of its classes, if known.
        check: also look at the headers of the images, and whether the boxes have another format.
        masks: an object without a mask is invalid too.
    """
    defects = Defects(f"dataset {name!r}")
    defects.on_invalid = ""
    defects.num_images = len(dicts)
    dicts = _with_fields(dicts, defects)
    defects.num_annotations = sum(len(x.get("annotations") or ()) for x in dicts)
    paths = [str(x.get("file_name", "://")) for x in dicts]
    headers = read_headers(paths) if check else [None] * len(dicts)
    boxes: _Boxes = {mode: [] for mode in _MODES.values()}
    degenerate, outside, classes = 0, 0, Counter[Any]()
    for index, (image, header) in enumerate(zip(dicts, headers)):
        who = f"image {image.get('image_id', index)!r} ({image.get('file_name', 'no file name')})"
        size = _size(image, header)
        _check_file(image, header, who, defects)
        for annotation in image.get("annotations") or ():
            if isinstance(category := annotation.get("category_id"), (int, np.integer)):
                classes[category] += 1
            box, mode = _numbers(annotation.get("bbox")), _mode(annotation)
            reason = _reason(annotation, box, num_classes)
            if masks and not reason and size is not None and not annotation.get("iscrowd", 0):
                width, height = (int(x) for x in size)
                reason = mask_defect(annotation.get("segmentation"), height, width) or ""
            if reason:
                text = f"bbox {annotation.get('bbox')}, category {category!r}"
                defects.add("annotations", reason, f"{who}: {text}: {reason}")
            if mode and box is not None and len(box) == 4:
                degenerate += not reason and _without_area(box, mode)
                if size is not None:
                    outside += not reason and _is_outside(box, mode, size)
                    boxes[mode].append((box, size))
    _check_ids(dicts, defects)
    _check_classes(classes, num_classes, defects)
    if degenerate:
        defects.warnings.append(f"{degenerate} boxes without area take no part in the training")
    if outside:
        defects.warnings.append(f"{outside} boxes lie outside their images: none can be learned")
    if check:
        _check_formats(boxes, defects)
    return defects


def _size(image: dict[str, Any], header: Header | None) -> tuple[float, float] | None:
    if "width" in image and "height" in image:
        return image["width"], image["height"]
    return header.upright_size if header is not None and not header.defect else None


def _check_file(image: dict[str, Any], header: Header | None, who: str, defects: Defects) -> None:
    if header is None:
        return
    defects.modes[header.mode] += 1
    size = _size(image, header) or (0, 0)
    if found := header_defect(header, *size):
        defects.missing_file |= header.defect == "is not there"
        defects.add("images", found[0], f"{who}: {found[1]}")


def _with_fields(dicts: list[dict[str, Any]], defects: Defects) -> list[dict[str, Any]]:
    """The dicts whose fields can be looked at; ``defects`` gets the others."""
    usable = []
    for index, image in enumerate(dicts):
        if reason := _wrong_field(image):
            defects.add("images", reason, f"dicts[{index}]: {reason}: {str(image)[:120]}")
        else:
            usable.append(image)
    return usable


def _wrong_field(image: Any) -> str:
    if not isinstance(image, dict):
        return "not a dict"
    annotations = image.get("annotations") or ()
    if not isinstance(annotations, (list, tuple)) or not all(
        isinstance(x, dict) for x in annotations
    ):
        return "with annotations that are no list of dicts"
    if not isinstance(image.get("image_id"), Hashable):
        return "with an image_id that is no number or string"
    if not all(
        isinstance(x, Real) and 0 < float(x) < math.inf
        for x in (image.get("width", 1), image.get("height", 1))
    ):
        return "with a width or height that is not positive or finite"
    return ""


def _mode(annotation: dict[str, Any]) -> str | None:
    """ "XYXY", "XYWH", or None for any other "bbox_mode"."""
    mode = annotation.get("bbox_mode")
    return _MODES.get(mode) if isinstance(mode, int) else None


def _numbers(box: Any) -> list[float] | None:
    """A box as finite numbers; None if it is no such thing."""
    try:
        numbers = np.asarray(box, dtype=np.float64)
    except (OverflowError, TypeError, ValueError):
        return None
    values = numbers.tolist() if numbers.ndim == 1 else []  # quicker one by one
    return values if values and all(map(math.isfinite, values)) else None


def _reason(annotation: dict[str, Any], box: list[float] | None, num_classes: int | None) -> str:
    """Why an annotation is invalid; "" if it is not."""
    missing = [key for key in ("bbox", "bbox_mode", "category_id") if annotation.get(key) is None]
    if missing:
        return f"without {', '.join(missing)}"
    if box is None:
        return "with a non-finite box"
    mode = annotation["bbox_mode"]
    known = _mode(annotation) is not None
    if known and len(box) != 4:
        return f"with a box of {len(box)} numbers"
    if not known and mode != BoxMode.XYWHA_ABS:
        return f"with the bbox_mode {mode!r}, which Detectron2 cannot convert"
    if mode == BoxMode.XYXY_ABS and (box[2] < box[0] or box[3] < box[1]):
        return "with an inverted box (x1 < x0 or y1 < y0; is it XYWH_ABS?)"
    if mode == BoxMode.XYWH_ABS and min(box[2:]) < 0:
        return "with a negative width or height"
    category = annotation["category_id"]
    if not isinstance(category, (int, np.integer)):
        return "with a category_id that is no integer"
    if num_classes is not None and not 0 <= category < num_classes:
        return f"with a category_id outside 0..{num_classes - 1}"
    if annotation.get("iscrowd", 0) not in (0, 1):  # another counts as a crowd, and is dropped
        return "with an iscrowd not 0 or 1"
    return ""


def _without_area(box: list[float], mode: str) -> bool:
    return box[2] <= box[0] or box[3] <= box[1] if mode == "XYXY" else min(box[2:]) <= 0


def _is_outside(box: list[float], mode: str, size: tuple[float, float]) -> bool:
    x0, y0, x1, y1 = box
    if mode == "XYWH":
        x1, y1 = x0 + x1, y0 + y1
    return x0 >= size[0] or y0 >= size[1] or x1 <= 0 or y1 <= 0


def _check_ids(dicts: list[dict[str, Any]], defects: Defects) -> None:
    files: dict[Any, Any] = {}
    repeated = 0
    for image in dicts:
        if "image_id" not in image:
            continue
        key, file = image["image_id"], image.get("file_name")
        if files.setdefault(key, file) != file:
            example = f"image {key!r}: both {files[key]} and {file} have this image_id"
            defects.add("images", "duplicate image_id", example)
        else:
            repeated += 1
    if repeated := repeated - len(files):
        defects.warnings.append(f"{repeated} images are listed again; an evaluation counts them so")
    if missing := sum("image_id" not in image for image in dicts):
        defects.warnings.append(f"{missing} images have no image_id; an evaluation needs it")


def _check_classes(classes: Counter[Any], num_classes: int | None, defects: Defects) -> None:
    numbers = [x for x in classes if isinstance(x, (int, np.integer))]
    if num_classes and numbers and (min(numbers), max(numbers)) == (1, num_classes):
        defects.errors.append(
            f"the category_id of the annotations go from 1 to {num_classes}: they look counted "
            f"from 1; Detectron2's go from 0 to {num_classes - 1}"
        )


def _check_formats(boxes: _Boxes, defects: Defects) -> None:
    for mode, found in boxes.items():
        numbers = np.array([box for box, _ in found], dtype=np.float64).reshape(-1, 4)
        sizes = np.array([size for _, size in found], dtype=np.float64).reshape(-1, 2)
        if suspicion := box_suspicion(numbers, sizes, mode):
            (defects.errors if suspicion.is_error else defects.warnings).append(suspicion.text)
