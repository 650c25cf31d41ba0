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

__all__ = ["MASK_FORMATS", "check_mask_format", "mask_defect", "transformed_masks"]

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
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if not isinstance(counts, (str, bytes, list)) or not isinstance(size, (list, tuple)):
            return "with a mask that has no size and counts"
        if list(size) != [height, width]:
            return "with a mask of another size than the image"
        return None if run_lengths.area(_encoded(segmentation)) else "with an empty mask"
    if not isinstance(segmentation, (list, tuple)):
        return "with a mask that is neither polygons nor run lengths"
    for polygon in segmentation:
        if not isinstance(polygon, (list, tuple)) or len(polygon) % 2:
            return "with a polygon that is no list of x, y, x, y, ..."
        if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in polygon):
            return "with a polygon of other than finite numbers"
    return None if any(len(x) >= 6 for x in segmentation) else "without a polygon of 3 corners"


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
            "for it"
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
