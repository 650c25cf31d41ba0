"""Images resized as Detectron2's ``ResizeShortestEdge`` and ``Resize`` do, and padded as
:class:`gfocal.data.transforms.CenterPad` does, without Detectron2.

Images are (H, W, C). Sizes are (height, width), pixels.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..data.batching import Size

__all__ = ["center_padded", "resize", "resized"]


def resized(size: Size, rule: Mapping[str, Any]) -> Size:
    """The size of an image after its resizing, or its padding; each side has one pixel at least.

    Args:
        size: of the image.
        rule: {"short_edge": the shorter side, "max_size": limit of the longer one}; {"height",
            "width"}; {"center_pad": see :func:`center_padded`}; {} for none.
    """
    if not rule:
        return size
    if "height" in rule:
        return rule["height"], rule["width"]
    if "center_pad" in rule:
        multiple, extra = (rule["center_pad"][name] for name in ("multiple", "extra"))
        return (size[0] | multiple) + extra, (size[1] | multiple) + extra
    # In Detectron2's order: another one rounds some sizes to other pixels.
    short, limit = rule["short_edge"], rule.get("max_size", sys.maxsize)
    height, width = size
    scale = short / min(height, width)
    high, wide = (short, scale * width) if height < width else (scale * height, short)
    if max(high, wide) > limit:
        scale = limit / max(high, wide)
        high, wide = high * scale, wide * scale
    return max(int(high + 0.5), 1), max(int(wide + 0.5), 1)


def resize(image: np.ndarray, size: Size) -> np.ndarray:
    """An image in another size, bilinear: by Pillow if it is uint8 of 1, 3 or 4 channels, which
    smooths what it shrinks; else as torch's ``interpolate``, in float32.

    Args:
        image: (H, W, C).
        size: of the result.
    """
    if image.dtype != np.uint8 or image.shape[2] not in (1, 3, 4):
        return _interpolated(image.astype(np.float32), size)
    one = image.shape[2] == 1
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, 0] if one else image))
    pixels = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))
    return pixels[:, :, None] if one else pixels


def center_padded(image: np.ndarray, size: Size, mean: Any) -> tuple[np.ndarray, Size]:
    """An image (H, W, C) in the middle of a larger one, whose other pixels have the value ``mean``,
    one or one a channel; and its place (top, left) there."""
    height, width = image.shape[:2]
    top, left = size[0] // 2 - height // 2, size[1] // 2 - width // 2
    # In float32, as the network takes it: a mean colour may be no integer.
    ret = np.empty((*size, image.shape[2]), np.float32)
    ret[...] = mean
    ret[top : top + height, left : left + width] = image
    return ret, (top, left)


def _interpolated(image: np.ndarray, size: Size) -> np.ndarray:
    for axis, new in enumerate(size):
        old = image.shape[axis]
        # Pixels are squares: their centres lie at i + 0.5.
        place = ((np.arange(new, dtype=np.float32) + 0.5) * np.float32(old / new) - 0.5).clip(0)
        low = place.astype(np.int64)
        high = np.minimum(low + 1, old - 1)
        part = (place - low).astype(np.float32).reshape(-1, *[1] * (2 - axis))
        image = image.take(low, axis) * (1 - part) + image.take(high, axis) * part
    return image
