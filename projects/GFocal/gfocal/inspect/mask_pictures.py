"""Masks on pictures."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from detectron2.structures import Instances, PolygonMasks
from detectron2.structures.masks import polygons_to_bitmask

__all__ = ["paint_masks"]

_OPACITY = 0.45


def paint_masks(
    image: np.ndarray, instances: Instances, shown: Sequence[int], colors: Sequence[str]
) -> np.ndarray:
    """An image under the masks of instances, the first on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: on the CPU, with `pred_masks` (N, H, W) or `gt_masks`, or without masks.
        shown: the indices of those that are painted.
        colors: one for each of these.

    Returns:
        (H, W, 3) uint8; the image itself without masks.
    """
    masks = _masks(instances, image.shape[:2])
    if masks is None:
        return image
    painted = image.astype(np.float32)
    for index, color in reversed(list(zip(shown, colors))):
        tint = 255 * np.array(matplotlib.colors.to_rgb(color), dtype=np.float32)
        mask = masks[index]
        painted[mask] += _OPACITY * (tint - painted[mask])
    return painted.round().astype(np.uint8)


def _masks(instances: Instances, size: tuple[int, int]) -> Any:
    """(N, H, W) bool, or a list of (H, W); None without masks."""
    if instances.has("pred_masks"):
        masks = instances.pred_masks
    elif instances.has("gt_masks"):
        masks = instances.gt_masks
        if isinstance(masks, PolygonMasks):
            return [
                polygons_to_bitmask(x, *size) if len(x) else np.zeros(size, dtype=bool)
                for x in masks.polygons
            ]
    else:
        return None
    return np.asarray(getattr(masks, "tensor", masks), dtype=bool)
