"""A part of an image at a place of a new one: what cropping and padding have in common.

Sizes are (height, width). Boxes are XYXY. All are in pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np

__all__ = [
    "CenterPadTransform",
    "PlaceTransform",
    "apply_regions",
    "content_of",
    "cut_polygon",
    "inside",
]

_IGNORED = 255  # Detectron2's value for pixels of a segmentation that are of no class


class PlaceTransform(T.Transform):
    """Copies a crop of an image into a new image, whose other pixels have one colour.

    A box is clipped to the image, moved with it and clipped to the new image. With ``drop``, a box
    whose centre is not inside the crop becomes (0, 0, 0, 0). It stays without area through all
    further transforms, so that Detectron2's ``filter_empty_instances`` removes it and its class.

    Args:
        source: size of the image.
        crop: (left, top, right, bottom) of the part that is copied.
        size: of the new image.
        offset: (left, top) of the crop in the new image.
        fill: the colour, a number for all channels or one for each. If an image of integers cannot
            hold it, the new image is float32.
        drop: whether boxes with their centre outside of the crop are dropped.

    Raises:
        ValueError: the crop is empty, or not inside of the image, or of the new image.
    """

    def __init__(
        self,
        source: tuple[int, int],
        crop: tuple[int, int, int, int],
        size: tuple[int, int],
        offset: tuple[int, int],
        fill: float | Sequence[float] = 0.0,
        drop: bool = True,
    ):
        super().__init__()
        left, top, right, bottom = crop
        width, height = right - left, bottom - top
        fits = 0 <= left < right <= source[1] and 0 <= top < bottom <= source[0]
        fits = fits and min(offset) >= 0
        if not (fits and offset[0] + width <= size[1] and offset[1] + height <= size[0]):
            raise ValueError(
                f"crop {crop} of an image of {source}, at {offset} of one of {size}; expected a "
                "part of both"
            )
        self.source, self.crop, self.size, self.offset = source, crop, size, offset
        self.fill, self.drop = fill, drop

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        fill = np.atleast_1d(np.asarray(self.fill, dtype=np.float64))
        channels = img.shape[2] if img.ndim == 3 else 1
        if len(fill) not in (1, channels):
            raise ValueError(
                f"the colour {self.fill} of the padding is for {len(fill)} channels, and the image "
                f"has {channels}; expected as many"
            )
        is_exact = img.dtype.kind == "f" or (fill == fill.astype(img.dtype)).all()
        return self._placed(img, fill, img.dtype if is_exact else np.dtype(np.float32))

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self._placed(segmentation, _IGNORED, segmentation.dtype)

    def _placed(self, image: np.ndarray, fill: Any, dtype: np.dtype) -> np.ndarray:
        left, top, right, bottom = self.crop
        cropped = image[top:bottom, left:right]
        if cropped.shape[:2] == tuple(self.size):
            return cropped.astype(dtype, copy=False)
        placed = np.empty((*self.size, *image.shape[2:]), dtype)
        placed[...] = fill
        x, y = self.offset
        placed[y : y + bottom - top, x : x + right - left] = cropped
        return placed

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords + (np.array(self.offset) - self.crop[:2])

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Polygons (n, 2), cut to the crop; those outside of it are left out."""
        x, y = self.offset
        frame = (x, y, x + self.crop[2] - self.crop[0], y + self.crop[3] - self.crop[1])
        cut = (cut_polygon(self.apply_coords(polygon), frame) for polygon in polygons)
        return [polygon for polygon in cut if len(polygon)]

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        boxes = self._within(box, self.source)
        moved = self.apply_region(boxes)
        if self.drop:
            moved[~inside(boxes, self.crop)] = 0.0
        return moved

    def apply_region(self, box: np.ndarray) -> np.ndarray:
        """As ``apply_box``, but nothing is dropped: what is still seen of a region counts."""
        boxes = self._within(box, self.source)
        moved = self.apply_coords(boxes.reshape(-1, 2)).reshape(-1, 4)
        return self._within(moved, self.size)

    @staticmethod
    def _within(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        height, width = size
        boxes = np.asarray(box, dtype=np.float64).reshape(-1, 4)
        return boxes.clip(0.0, [width, height, width, height])


class CenterPadTransform(PlaceTransform):
    """The whole image in the middle of a larger one, for a test; see ``CenterPad``.

    Args:
        source: size of the image.
        size: of the new image.
        fill: see :class:`PlaceTransform`.

    Raises:
        ValueError: the new image is smaller.
    """

    def __init__(
        self, source: tuple[int, int], size: tuple[int, int], fill: float | Sequence[float] = 0.0
    ):
        height, width = source
        # The middle pixels of both lie on each other, also where a size is odd.
        offset = (size[1] // 2 - width // 2, size[0] // 2 - height // 2)
        super().__init__(source, (0, 0, width, height), size, offset, fill, drop=False)


def inside(boxes: np.ndarray, crop: tuple[int, int, int, int]) -> np.ndarray:
    """Which boxes (N, 4) have area, and their centre inside of a crop, not on its edge: (N,)."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return has_area & ((centers > crop[:2]) & (centers < crop[2:])).all(axis=1)


def cut_polygon(corners: np.ndarray, frame: tuple[float, float, float, float]) -> np.ndarray:
    """The part of a polygon inside of a rectangle. Where it has several parts, edges on the border
    of the rectangle join them: they enclose no area.

    Args:
        corners: (n, 2) x and y.
        frame: (left, top, right, bottom).

    Returns:
        (m, 2) corners; (0, 2) if no area is left.
    """
    for axis, bound, sign in (
        (0, frame[0], 1),
        (1, frame[1], 1),
        (0, frame[2], -1),
        (1, frame[3], -1),
    ):
        inner = sign * (corners[:, axis] - bound)  # above 0 inside
        kept: list[np.ndarray] = []
        for index, corner in enumerate(corners):
            before, depths = corners[index - 1], (inner[index - 1], inner[index])
            if min(depths) < 0 < max(depths):  # the edge crosses the bound
                kept.append(before + (corner - before) * (depths[0] / (depths[0] - depths[1])))
            if depths[1] >= 0:
                kept.append(corner)
        corners = np.array(kept).reshape(-1, 2)
        if not len(corners):
            return corners
    x, y = corners.T
    area = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum()
    return corners if abs(area) > 1e-9 else corners[:0]


def apply_regions(transforms: T.TransformList, boxes: np.ndarray) -> np.ndarray:
    """Boxes of regions, (N, 4), after transforms. Regions, such as crowds, lose what leaves the
    image, but none is dropped as a whole while a part of it is seen."""
    for transform in transforms.transforms:
        boxes = getattr(transform, "apply_region", transform.apply_box)(boxes)
    return boxes


def content_of(transforms: T.TransformList) -> Mapping[str, tuple[int, int]]:
    """Where the image is in what ``CenterPad`` made of it.

    Args:
        transforms: that were applied to the image.

    Returns:
        "border": (top, left) of the image in the padded one, and "content_size": its (height,
        width), pixels. {} without such a padding.

    Raises:
        ValueError: the padding is not the last of them.
    """
    padding = [x for x in transforms.transforms if isinstance(x, CenterPadTransform)]
    if not padding:
        return {}
    if len(padding) > 1 or padding[0] is not transforms.transforms[-1]:
        names = [type(x).__name__ for x in transforms.transforms]
        raise ValueError(f"the transforms are {names}; expected one CenterPad, as the last")
    left, top = padding[0].offset
    return {"border": (top, left), "content_size": tuple(padding[0].source)}
