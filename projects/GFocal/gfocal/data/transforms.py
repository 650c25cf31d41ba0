"""The augmentations of SSD, CenterNet and CornerNet, for Detectron2's data loaders.

They draw from NumPy's global random state, as Detectron2's own do. Sizes are (height, width), boxes
XYXY, both in pixels. A box that an augmentation drops has no area after its transform, see
:class:`.PlaceTransform`. Boxes without area, and crowds, have no say in what is cropped.
"""

import math
from collections.abc import Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
from fvcore.transforms.transform import NoOpTransform

from .colors import PhotometricTransform
from .placement import CenterPadTransform, PlaceTransform, inside

__all__ = [
    "CenterPad",
    "MinIoURandomCrop",
    "PhotometricDistortion",
    "RandomCenterCropPad",
    "RandomExpand",
]

_TRIES = 50  # for one threshold, or one size, before another is drawn


class RandomExpand(T.Augmentation):
    """Puts the image at a random place of a larger one, so that its objects are smaller for a net
    with a fixed input (SSD, https://arxiv.org/abs/1512.02325, Sec. 3.6).

    Args:
        mean: colour of the rest, of each channel or one for all. An image of integers gets it
            without its fraction, as in MMDetection.
        ratio_range: bounds of the ratio of the sides, from 1 on.
        prob: of expanding.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        mean: float | Sequence[float],
        ratio_range: Sequence[float] = (1, 4),
        prob: float = 0.5,
    ):
        super().__init__()
        _check(self, "prob", prob, 0 <= prob <= 1, "a number in [0, 1]")
        self.mean = _mean(mean)
        self.ratio_range = _range(self, "ratio_range", ratio_range, least=1)
        self.prob = prob

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if np.random.uniform() >= self.prob:
            return NoOpTransform()
        height, width = image.shape[:2]
        ratio = np.random.uniform(*self.ratio_range)
        left = int(np.random.uniform(0, width * ratio - width))
        top = int(np.random.uniform(0, height * ratio - height))
        fill = np.array(self.mean) if image.dtype.kind == "f" else np.trunc(self.mean)
        return PlaceTransform(
            (height, width),
            (0, 0, width, height),
            (int(height * ratio), int(width * ratio)),
            (left, top),
            fill.tolist(),
        )


class MinIoURandomCrop(T.Augmentation):
    """Crops so that the crop overlaps with all objects, by a random IoU at least (SSD, Sec. 2.2).

    Each time, one choice is drawn: no crop, one of ``min_ious``, or any crop. A crop is tried up to
    50 times: its sides are random parts of the image's, with a ratio from 1:2 to 2:1. It must have
    that IoU with every box, and the centre of a box inside. If none is found, another choice is
    drawn. Boxes whose centre is outside of the crop are dropped.

    These are the rules of MMDetection. (The first code of SSD asks for the IoU with one box, not
    with all.)

    Args:
        min_ious: the IoUs.
        min_crop_size: least part of each side.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: float = 0.3,
    ):
        super().__init__()
        min_ious = tuple(float(x) for x in min_ious)
        _check(self, "min_ious", min_ious, all(0 <= x < 1 for x in min_ious), "numbers in [0, 1)")
        fits = 0 < min_crop_size <= 1
        _check(self, "min_crop_size", min_crop_size, fits, "a number in (0, 1]")
        self.min_ious, self.min_crop_size = min_ious, min_crop_size

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None = None) -> T.Transform:
        size = image.shape[:2]
        objects = _objects(boxes, size)
        while True:  # no crop is drawn sooner or later
            choice = np.random.randint(len(self.min_ious) + 2)
            if choice == 0:
                return NoOpTransform()
            min_iou = (*self.min_ious, 0.0)[choice - 1]
            for _ in range(_TRIES):
                crop = self._draw(size)
                if crop is not None and _allowed(crop, objects, min_iou):
                    left, top, right, bottom = crop
                    return PlaceTransform(size, crop, (bottom - top, right - left), (0, 0))

    def _draw(self, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
        """A crop; None if it is too narrow or empty."""
        image_height, image_width = size
        width = np.random.uniform(self.min_crop_size * image_width, image_width)
        height = np.random.uniform(self.min_crop_size * image_height, image_height)
        if not 0.5 <= height / width <= 2:
            return None
        # From 0 on. MMDetection's uniform(x) is one from x to 1, so it never crops at pixel 0.
        left = np.random.uniform(0, image_width - width)
        top = np.random.uniform(0, image_height - height)
        crop = int(left), int(top), int(left + width), int(top + height)
        return crop if crop[0] < crop[2] and crop[1] < crop[3] else None


class RandomCenterCropPad(T.Augmentation):
    """A window of random size around a random pixel; where it reaches out of the image, it has one
    colour (CornerNet, https://arxiv.org/abs/1808.01244, Sec. 4.1; CenterNet has it too).

    The pixel is at least ``border`` pixels inside of the image. That distance is halved until it
    leaves a pixel. With objects, the window must have the centre of one inside: 50 pixels are tried
    for each of 20 sizes. (The published code goes on for ever, where no window reaches an object.
    Here the last is around the centre of one.) Boxes whose centre is outside are dropped.

    Args:
        crop_size: (height, width) of the window for a ratio of 1, or one number for both.
        ratios: one is drawn.
        border: pixels.
        mean: colour of the rest, of each channel or one for all. If an image of integers cannot
            hold it, the window is float32.

    Raises:
        ValueError: an argument is out of range, or a window would have no pixel.
    """

    def __init__(
        self,
        crop_size: int | Sequence[int],
        ratios: Sequence[float] = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3),
        border: int = 128,
        mean: float | Sequence[float] = 0.0,
    ):
        super().__init__()
        ratios = tuple(float(x) for x in ratios)
        crop_size = (crop_size,) * 2 if isinstance(crop_size, int) else tuple(crop_size)
        fits = bool(ratios) and all(x > 0 and math.isfinite(x) for x in ratios)
        _check(self, "ratios", ratios, fits, "numbers above 0")
        fits = len(crop_size) == 2 and min(crop_size) * min(ratios) >= 2
        expected = "(height, width), at least 2 pixels each after the smallest of the ratios"
        _check(self, "crop_size", crop_size, fits, expected)
        _check(self, "border", border, border >= 0, "at least 0 pixels")
        self.crop_size, self.ratios, self.border = crop_size, ratios, border
        self.mean = _mean(mean)

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None = None) -> T.Transform:
        size = image.shape[:2]
        objects = _objects(boxes, size)
        top, left = (_shrunk_border(self.border, x) for x in size)
        for _ in range(20):
            ratio = np.random.choice(self.ratios)
            window = (int(self.crop_size[0] * ratio), int(self.crop_size[1] * ratio))
            for _ in range(_TRIES):
                x = np.random.randint(left, size[1] - left)
                y = np.random.randint(top, size[0] - top)
                transform = self._around(x, y, window, size)
                if len(objects) == 0 or inside(objects, transform.crop).any():
                    return transform
        x0, y0, x1, y1 = objects[np.random.randint(len(objects))]
        return self._around(int((x0 + x1) / 2), int((y0 + y1) / 2), window, size)

    def _around(
        self, x: int, y: int, window: tuple[int, int], size: tuple[int, int]
    ) -> PlaceTransform:
        """The window around a pixel. Of an odd side the last pixel is padding, as published."""
        half_height, half_width = window[0] // 2, window[1] // 2
        left, top = max(x - half_width, 0), max(y - half_height, 0)
        right, bottom = min(x + half_width, size[1]), min(y + half_height, size[0])
        offset = (half_width - (x - left), half_height - (y - top))
        return PlaceTransform(size, (left, top, right, bottom), window, offset, self.mean)


class CenterPad(T.Augmentation):
    """Pads an image on all sides, for a test of CenterNet or CornerNet. It must be the last one.

    A side of x pixels gets ``(x | multiple) + extra``: 31 and 1 make a multiple of 32, always a
    larger one (CenterNet); 127 and 0 make one less than a multiple of 128 (CornerNet). The mapper
    and the Predictor then give the model the "border" and the "content_size" of the image, see
    ``content_of``. (Where a side has that size, the published code loses its last pixel; here
    all are kept.)

    Args:
        mean: colour of the padding, of each channel or one for all. If an image of integers cannot
            hold it, the padded one is float32.
        multiple: one less than a power of 2.
        extra: pixels.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, mean: float | Sequence[float] = 0.0, multiple: int = 31, extra: int = 1):
        super().__init__()
        fits = isinstance(multiple, int) and multiple >= 0 and multiple & (multiple + 1) == 0
        _check(self, "multiple", multiple, fits, "one less than a power of 2, such as 31 or 127")
        _check(self, "extra", extra, isinstance(extra, int) and extra >= 0, "at least 0 pixels")
        self.mean, self.multiple, self.extra = _mean(mean), multiple, extra

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        size = ((height | self.multiple) + self.extra, (width | self.multiple) + self.extra)
        return CenterPadTransform((height, width), size, self.mean)


class PhotometricDistortion(T.Augmentation):
    """Changes the colours, each in a random half of the images: brightness, contrast (before or
    after the next two), saturation and hue of HSV, and the order of the channels.

    The answer is float32, without clipping, as in MMDetection.

    Args:
        brightness_delta: at most so much is added to all values, or taken away.
        contrast_range: bounds of the factor.
        saturation_range: bounds of the factor.
        hue_delta: the hue is turned by so many degrees at most.
        image_format: "RGB" or "BGR".

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        brightness_delta: float = 32,
        contrast_range: Sequence[float] = (0.5, 1.5),
        saturation_range: Sequence[float] = (0.5, 1.5),
        hue_delta: float = 18,
        *,
        image_format: str,
    ):
        super().__init__()
        _check(self, "brightness_delta", brightness_delta, brightness_delta >= 0, "at least 0")
        _check(self, "hue_delta", hue_delta, 0 <= hue_delta <= 180, "degrees from 0 to 180")
        fits = image_format in ("RGB", "BGR")
        _check(self, "image_format", image_format, fits, "RGB or BGR, colours")
        self.brightness_delta, self.hue_delta = brightness_delta, hue_delta
        self.contrast_range = _range(self, "contrast_range", contrast_range)
        self.saturation_range = _range(self, "saturation_range", saturation_range)
        self.image_format = image_format

    def get_transform(self, image: np.ndarray) -> T.Transform:
        def drawn(low: float, high: float, neutral: float) -> float:
            is_on, value = np.random.randint(2), np.random.uniform(low, high)
            return float(value) if is_on else neutral

        return PhotometricTransform(
            brightness=drawn(-self.brightness_delta, self.brightness_delta, 0.0),
            contrast=drawn(*self.contrast_range, 1.0),
            contrast_first=bool(np.random.randint(2)),
            saturation=drawn(*self.saturation_range, 1.0),
            hue=drawn(-self.hue_delta, self.hue_delta, 0.0),
            channels=np.random.permutation(3).tolist() if np.random.randint(2) else (0, 1, 2),
            image_format=self.image_format,
        )


def _check(owner: Any, name: str, value: Any, fits: Any, expected: str) -> None:
    if not fits:
        raise ValueError(f"{type(owner).__name__}: {name} is {value!r}; expected {expected}")


def _mean(mean: float | Sequence[float]) -> tuple[float, ...]:
    """A config's lists are none of Python's."""
    return (float(mean),) if isinstance(mean, (int, float)) else tuple(float(x) for x in mean)


def _range(owner: Any, name: str, bounds: Sequence[float], least: float = 0) -> tuple[float, float]:
    fits = len(bounds) == 2 and least <= bounds[0] <= bounds[1] < math.inf
    _check(owner, name, list(bounds), fits, f"(low, high), from {least:g} on")
    return float(bounds[0]), float(bounds[1])


def _objects(boxes: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    """(N, 4) boxes with area inside of the image of ``size``; (0, 4) for None."""
    if boxes is None:
        return np.zeros((0, 4))
    height, width = size
    ret = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    ret = ret.clip(0, [width, height, width, height])
    return ret[(ret[:, 2:] > ret[:, :2]).all(axis=1)]


def _allowed(crop: tuple[int, int, int, int], objects: np.ndarray, min_iou: float) -> bool:
    """Whether a crop has that IoU with every object, and the centre of one inside."""
    if len(objects) == 0:
        return True
    if not inside(objects, crop).any():
        return False
    corners = np.maximum(objects[:, :2], crop[:2]), np.minimum(objects[:, 2:], crop[2:])
    shared = (corners[1] - corners[0]).clip(0).prod(axis=1)
    areas = (objects[:, 2:] - objects[:, :2]).prod(axis=1)
    area = (crop[2] - crop[0]) * (crop[3] - crop[1])
    return bool((shared / (areas + area - shared)).min() >= min_iou)


def _shrunk_border(border: int, side: int) -> int:
    """The border, halved until there is a pixel between both borders of a side."""
    parts = 1
    while side - border // parts <= border // parts:
        parts *= 2
    return border // parts
