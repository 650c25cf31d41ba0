"""What the steps have in common that put further images of the dataset into a mapped one.

A step is called with a mapped image, the dict of a mapper, and with a function that maps a further
random image of the dataset. It answers the image to train on. It draws from the global random
states, so that an image depends on its place in the stream alone (see ``build_train_loader``).

Boxes are XYXY, in pixels; sizes are (height, width). An object is visible to a share of its pixels,
those of its mask, or of its box where there are no masks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.structures.masks import polygons_to_bitmask

from .outlines import outlines

__all__ = [
    "Another",
    "Mapped",
    "Step",
    "check_mapped",
    "check_prob",
    "check_share",
    "covered",
    "cut",
    "moved_boxes",
    "pixels_of",
]

Mapped = dict[str, Any]
Another = Callable[[], Mapped]
Step = Callable[[Mapped, Another], Mapped]

_FIELDS = {"gt_boxes", "gt_classes", "gt_masks"}
_FIXED = ("sem_seg", "pan_seg", "proposals", "border")  # of one image; a step cannot move them


def check_prob(step: Any, prob: Any) -> float:
    """Raises ValueError unless it is a number in [0, 1]."""
    return _number(step, "prob", prob, 0 <= prob <= 1, "a number in [0, 1]")


def check_share(step: Any, name: str, share: Any) -> float:
    """Raises ValueError unless it is a number in [0, 1)."""
    return _number(step, name, share, 0 <= share < 1, "a share in [0, 1)")


def _number(step: Any, name: str, value: Any, fits: bool, expected: str) -> float:
    if isinstance(value, bool) or not fits:
        raise ValueError(f"{type(step).__name__}: {name} is {value!r}; expected {expected}")
    return float(value)


def check_mapped(step: Any, mapped: Mapped) -> None:
    """Checks that a step can mix an image.

    Raises:
        ValueError: it has no objects' boxes, or something that a step cannot move, such as
            keypoints. The message names the file.
    """
    where = f"{type(step).__name__}: image {mapped.get('image_id', 'without id')} "
    where += f"({mapped.get('file_name', 'no file name')})"
    missing = [key for key in ("image", "instances") if key not in mapped]
    if missing:
        raise ValueError(
            f"{where} has no {missing[0]!r} after the mapper; expected a mapper of training images "
            "with annotations, such as DetectionMapper(is_train=True, ...)"
        )
    fixed = [key for key in _FIXED if key in mapped]
    fixed += sorted(set(mapped["instances"].get_fields()) - _FIELDS)
    if fixed:
        raise ValueError(f"{where} has {fixed[0]!r}; expected {', '.join(sorted(_FIELDS))} alone")


def pixels_of(instances: Instances) -> torch.Tensor:
    """The masks of objects as (N, height, width) bool, whatever their format."""
    masks, size = instances.gt_masks, instances.image_size
    if isinstance(masks, BitMasks):
        return masks.tensor
    if len(masks) == 0:
        return torch.zeros(0, *size, dtype=torch.bool)
    return torch.from_numpy(np.stack([polygons_to_bitmask(x, *size) for x in masks.polygons]))


def covered(instances: Instances, cover: torch.Tensor, min_visible: float) -> Instances:
    """Objects with masks, after something was put in front of them.

    Args:
        instances: with gt_masks.
        cover: (height, width) bool, the pixels in front.
        min_visible: see :func:`cut`.

    Returns:
        the objects that are still visible. A hidden pixel is in no mask. The box of an object that
        lost pixels is tight around the others.
    """
    pixels = pixels_of(instances)
    return _seen(instances, _count(pixels), pixels & ~cover, min_visible)


def cut(
    instances: Instances,
    window: tuple[int, int, int, int],
    offset: tuple[int, int],
    size: tuple[int, int],
    min_visible: float,
) -> Instances:
    """The objects in a window of an image, moved to a place of another image.

    Args:
        instances: of the first image.
        window: (left, top, right, bottom) in it.
        offset: (left, top) of the window in the other image, which holds all of it.
        size: of the other image.
        min_visible: an object is dropped if a smaller share of it is visible, or no pixel.

    Returns:
        the objects of the other image. Boxes are clipped to the window. With masks, the box of an
        object that lost pixels is tight around the others.
    """
    moved = Instances(size)
    moved.gt_boxes = moved_boxes(instances.gt_boxes, window, offset)
    moved.gt_classes = instances.gt_classes
    if not instances.has("gt_masks"):
        areas = moved.gt_boxes.area().double(), instances.gt_boxes.area().double()
        return moved[moved.gt_boxes.nonempty() & (areas[0] >= min_visible * areas[1])]
    before = pixels_of(instances)
    left, top, right, bottom = window
    part = before[:, top:bottom, left:right]
    pixels = torch.zeros(len(before), *size, dtype=torch.bool)
    x, y = offset
    pixels[:, y : y + part.shape[1], x : x + part.shape[2]] = part
    if isinstance(instances.gt_masks, PolygonMasks):
        shift = [x - left, y - top]
        moved.gt_masks = PolygonMasks(
            [[p + np.resize(shift, len(p)) for p in polygons] for polygons in _polygons(instances)]
        )
    else:
        moved.gt_masks = BitMasks(pixels)
    return _seen(moved, _count(before), pixels, min_visible)


def moved_boxes(boxes: Boxes, window: tuple[int, int, int, int], offset: tuple[int, int]) -> Boxes:
    """Boxes clipped to a window, which is moved to ``offset``; see :func:`cut`."""
    left, top, right, bottom = window
    low, high = torch.tensor([left, top] * 2), torch.tensor([right, bottom] * 2)
    return Boxes(boxes.tensor.clamp(low, high) - low + torch.tensor(offset * 2))


def _seen(
    instances: Instances, before: torch.Tensor, pixels: torch.Tensor, min_visible: float
) -> Instances:
    """The visible objects.

    Args:
        instances: with the masks and boxes before something was hidden.
        before: (N,) numbers of pixels then.
        pixels: (N, height, width) those that are visible.
        min_visible: see :func:`cut`.
    """
    after = _count(pixels)
    changed = after < before
    kept = (after >= min_visible * before.double()) & (after > 0)
    # A mask too thin for a pixel says nothing of what is visible; its box does.
    kept |= (before == 0) & instances.gt_boxes.nonempty()
    seen = Instances(instances.image_size)
    seen.gt_classes = instances.gt_classes[kept]
    boxes = instances.gt_boxes.tensor.clone()
    boxes[changed] = BitMasks(pixels[changed]).get_bounding_boxes().tensor
    seen.gt_boxes = Boxes(boxes[kept])
    if isinstance(instances.gt_masks, BitMasks):
        seen.gt_masks = BitMasks(pixels[kept])
    else:
        polygons = _polygons(instances)
        seen.gt_masks = PolygonMasks(
            [
                _outlines(pixels[i]) if changed[i] else polygons[i]
                for i in kept.nonzero().flatten().tolist()
            ]
        )
    return seen


def _polygons(instances: Instances) -> Sequence[Sequence[np.ndarray]]:
    return instances.gt_masks.polygons


def _outlines(pixels: torch.Tensor) -> list[np.ndarray]:
    return [x.astype(np.float64).reshape(-1) for x in outlines(pixels.numpy())]


def _count(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.flatten(1).sum(dim=1)
