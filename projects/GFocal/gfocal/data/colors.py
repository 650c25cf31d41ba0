"""Brightness, contrast, saturation and hue of an image, in float32.

Images are (H, W, 3), usually with values from 0 to 255. No value is clipped.
"""

from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
from fvcore.transforms.transform import NoOpTransform

__all__ = ["PhotometricTransform", "adjust_hue_and_saturation"]


_ROWS = 32  # at a time: so few stay in the processor's cache, which makes it three times as fast


class PhotometricTransform(T.Transform):
    """Adds a brightness; multiplies by a contrast, before or after the next step; multiplies the
    saturation and turns the hue, of HSV; reorders the channels.

    Its answer is float32 and may have values outside of 0..255, as in MMDetection.

    Args:
        brightness: is added.
        contrast: a factor.
        contrast_first: before saturation and hue, else after them.
        saturation: a factor.
        hue: degrees.
        channels: the order of the channels after all this.
        image_format: "RGB" or "BGR".
    """

    def __init__(
        self,
        *,
        brightness: float = 0.0,
        contrast: float = 1.0,
        contrast_first: bool = True,
        saturation: float = 1.0,
        hue: float = 0.0,
        channels: Sequence[int] = (0, 1, 2),
        image_format: str = "BGR",
    ):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """
        Raises:
            ValueError: not an image of 3 channels.
        """
        if img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(f"an image of shape {img.shape}; expected (H, W, 3), colours")
        img = img.astype(np.float32)
        img += np.float32(self.brightness)
        if self.contrast_first:
            img *= np.float32(self.contrast)
        img = adjust_hue_and_saturation(img, self.hue, self.saturation, self.image_format)
        if not self.contrast_first:
            img *= np.float32(self.contrast)
        channels = list(self.channels)
        return img if channels == [0, 1, 2] else img[:, :, channels]

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> T.Transform:
        return NoOpTransform()


def adjust_hue_and_saturation(
    image: np.ndarray, hue: float, saturation: float, image_format: str
) -> np.ndarray:
    """Turns the hue and multiplies the saturation of HSV.

    A colour is value - chroma * (1 - part), with the largest channel as the value, the range of the
    channels as the chroma, and parts in [0, 1] that depend on the hue alone. Saturation is
    chroma / value, so its factor is one of the chroma. (OpenCV, in the published code, mirrors
    pixels of a negative value; here these are as any other.)

    Args:
        image: (H, W, 3) float32; it is not changed.
        hue: degrees.
        saturation: a factor.
        image_format: "RGB" or "BGR".
    """
    if hue == 0 and saturation == 1:
        return image
    result = np.empty_like(image)
    for start in range(0, len(image), _ROWS):
        rows = slice(start, start + _ROWS)
        result[rows] = _adjusted(image[rows], hue, saturation, image_format)
    return result


def _adjusted(image: np.ndarray, hue: float, saturation: float, image_format: str) -> np.ndarray:
    order = (0, 1, 2) if image_format == "RGB" else (2, 1, 0)
    red, green, blue = (np.ascontiguousarray(image[:, :, i]) for i in order)
    value = np.maximum(np.maximum(red, green), blue)  # image.max(axis=2) takes 30 times as long
    factor = np.float32(saturation)
    if hue == 0:
        return value[:, :, None] + factor * (image - value[:, :, None])
    chroma = value - np.minimum(np.minimum(red, green), blue)
    safe = np.where(chroma > 0, chroma, np.float32(1))
    # In sixths of a turn: 0 is red, 2 green, 4 blue.
    position = np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    position = np.where(value == red, (green - blue) / safe, position)
    position += np.float32(hue / 60)
    position -= 6 * np.floor(position / 6)
    chroma *= factor
    least = value - chroma
    parts = (np.abs(position - 3) - 1, 2 - np.abs(position - 2), 2 - np.abs(position - 4))
    result = np.empty_like(image)
    for i, part in zip(order, parts):
        result[:, :, i] = least + chroma * part.clip(0, 1)
    return result
