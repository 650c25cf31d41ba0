"""Masks of objects, from COCO's polygons and run lengths to Detectron2's structures.

Coordinates are pixels of the image.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.structures import BitMasks, PolygonMasks
from detectron2.structures.masks import polygons_to_bitmask
from pycocotools import mask as run_lengths

from .placement import PlaceTransform

__all__ = [
    "MASK_FORMATS",
    "check_mask_format",
    "mask_area",
    "mask_defect",
    "transformed_masks",
    "usable_mask",
]

MASK_FORMATS = ("polygon", "bitmask")


def check_mask_format(mask_format: str) -> None:
    """Raises ValueError unless it is one of Detectron2's formats."""
    if mask_format not in MASK_FORMATS:
        raise ValueError(
            f"instance_mask_format (INPUT.MASK_FORMAT in a yacs config) is {mask_format!r}; "
            'expected "polygon" or "bitmask"'
        )


def mask_defect(segmentation: Any, height: int, width: int) -> str | None:
    """Why an annotation's "segmentation" is no mask of an object in an image of that size.

    Polygons of fewer than three corners are no reason, as long as there is another: COCO has some.
    """
    if not segmentation:
        return "without a mask"
    if isinstance(segmentation, Mapping):
        return _run_length_defect(segmentation, height, width)
    if not isinstance(segmentation, (list, tuple)):
        return "with a mask that is neither polygons nor run lengths"
    for polygon in segmentation:
        polygon = polygon.tolist() if isinstance(polygon, np.ndarray) else polygon
        if not isinstance(polygon, (list, tuple)) or len(polygon) % 2:
            return "with a polygon that is no list of x, y, x, y, ..."
        if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in polygon):
            return "with a polygon of other than finite numbers"
    return None if any(len(x) >= 6 for x in segmentation) else "without a polygon of 3 corners"


def _run_length_defect(mask: Mapping[str, Any], height: int, width: int) -> str | None:
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(counts, (str, bytes, list)) or not isinstance(size, (list, tuple)):
        return "with a mask that has no size and counts"
    if list(size) != [height, width]:
        return "with a mask of another size than the image"
    if not isinstance(counts, list):
        counts = _unpacked(counts)
    if not counts or not all(type(x) is int and x >= 0 for x in counts):
        return "with run lengths that cannot be read"
    if sum(counts) != height * width:  # pycocotools would not end
        return "with run lengths of another sum than the image's pixels"
    return None if any(counts[1::2]) else "with an empty mask"


def _unpacked(text: str | bytes) -> list[int]:
    """The run lengths in the text of pycocotools: five bits a character, the differences to the
    length before the last; [] if it is no such text."""
    codes = text if isinstance(text, bytes) else text.encode("utf-8")
    counts: list[int] = []
    value = shift = 0
    for code in codes:
        part = code - 48
        if not 0 <= part < 64 or shift > 60:
            return []
        value |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        if part & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return [] if shift else counts


def usable_mask(segmentation: Any, height: int, width: int) -> Any:
    """A mask as pycocotools and Detectron2 take it: without polygons of fewer than three corners,
    run lengths as text; None if it is none, see :func:`mask_defect`."""
    if mask_defect(segmentation, height, width):
        return None
    if not isinstance(segmentation, Mapping):
        return [list(x) for x in segmentation if len(x) >= 6]
    counts = _encoded(segmentation)["counts"]
    counts = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [height, width], "counts": counts}


def mask_area(segmentation: Any, height: int, width: int) -> float:
    """Pixels of a mask that has no defect."""
    if not isinstance(segmentation, Mapping):
        rows = [list(map(float, x)) for x in segmentation if len(x) >= 6]
        return float(
            run_lengths.area(run_lengths.merge(run_lengths.frPyObjects(rows, height, width)))
        )
    return float(run_lengths.area(_encoded(segmentation)))


def transformed_masks(
    annotations: Sequence[Mapping[str, Any]],
    transforms: T.TransformList,
    size: tuple[int, int],
    mask_format: str,
) -> PolygonMasks | BitMasks:
    """The masks of annotations after an image's transforms.

    Args:
        annotations: each with "segmentation", polygons or run lengths of COCO.
        transforms: of the image.
        size: (height, width) of the image after them.
        mask_format: "polygon", which keeps polygons as they are, or "bitmask".

    Returns:
        N masks, ``PolygonMasks`` or ``BitMasks`` (N, height, width).

    Raises:
        ValueError: an annotation has no segmentation, or run lengths in the format "polygon".
    """
    missing = next((i for i, x in enumerate(annotations) if not x.get("segmentation")), None)
    if missing is not None:
        raise ValueError(
            f"annotation {missing} has no segmentation, and use_instance_mask (MODEL.MASK_ON) asks "
            "for it; a dataset is loaded with masks by detection_dataset_dicts(masks=True), in a "
            "LazyConfig dataloader.train.dataset.masks"
        )
    segmentations = [x["segmentation"] for x in annotations]
    if mask_format == "bitmask":
        left = _left_by_crops(transforms, size)
        masks = [_bitmask(x, transforms, left) for x in segmentations]
        return BitMasks(torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *size))
    if any(isinstance(x, Mapping) for x in segmentations):
        raise ValueError(
            "a mask is given by run lengths, and instance_mask_format (INPUT.MASK_FORMAT) is "
            '"polygon"; expected "bitmask" for such a dataset'
        )
    return PolygonMasks([_polygons(x, transforms) for x in segmentations])


def _polygons(segmentation: Sequence[Sequence[float]], transforms: Any) -> list[np.ndarray]:
    return [x.reshape(-1) for x in transforms.apply_polygons(_corners(segmentation))]


def _corners(segmentation: Sequence[Sequence[float]]) -> list[np.ndarray]:
    return [np.array(x, dtype=np.float64).reshape(-1, 2) for x in segmentation if len(x) >= 6]


def _bitmask(segmentation: Any, transforms: T.TransformList, left: np.ndarray) -> np.ndarray:
    """(height, width) bool, the pixels of a mask among those that crops have ``left``."""
    if isinstance(segmentation, Mapping):
        mask = run_lengths.decode(_encoded(segmentation))
        # What is beyond the image has another value than 0 or 1 after some transforms.
        return np.ascontiguousarray(transforms.apply_segmentation(mask) == 1)
    corners = _corners(segmentation)
    for transform in transforms.transforms:
        if isinstance(transform, T.CropTransform):  # its polygons need a package; pixels do not
            corners = [transform.apply_coords(x) for x in corners]
        else:
            corners = transform.apply_polygons(corners)
    if not corners:  # 0.5 asks for one
        return np.zeros(left.shape, dtype=bool)
    return polygons_to_bitmask([x.reshape(-1) for x in corners], *left.shape) & left


def _left_by_crops(transforms: T.TransformList, size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool: False where a crop's outside would be after a later padding."""
    left = np.ones(size, dtype=bool)
    for index, transform in enumerate(transforms.transforms):
        if isinstance(transform, T.CropTransform):
            x, y, width, height = 0, 0, transform.w, transform.h
        elif isinstance(transform, PlaceTransform):
            (x, y), (x0, y0, x1, y1) = transform.offset, transform.crop
            width, height = x1 - x0, y1 - y0
        else:
            continue
        frame = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], float)
        for later in transforms.transforms[index + 1 :]:
            frame = later.apply_coords(frame)
        left &= polygons_to_bitmask([frame.reshape(-1)], *size)
    return left


def _encoded(segmentation: Mapping[str, Any]) -> Any:
    """Run lengths as pycocotools packs them."""
    if isinstance(segmentation["counts"], list):
        return run_lengths.frPyObjects(dict(segmentation), *segmentation["size"])
    return dict(segmentation)
