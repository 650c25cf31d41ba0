"""Reading image files, and finding them. Neither PyTorch nor Detectron2 is needed.

Pixels, channels and orientation are those of Detectron2's ``read_image``.
"""

import glob
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .._installed import absent

__all__ = [
    "as_array",
    "as_rgb",
    "find_images",
    "image_size",
    "output_names",
    "read_image",
    "read_pixels",
]

_EXIF_ORIENTATION = 274  # from 5 on, the picture lies on its side
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# ITU-R BT.601, with the constants that Detectron2 has; a column an input channel.
_YUV_OF_RGB = np.array(
    [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]]
)
_RGB_OF_YUV = np.array([[1.0, 0.0, 1.13983], [1.0, -0.39465, -0.58060], [1.0, 2.03211, 0.0]])
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def find_images(inputs: Iterable[str]) -> list[str]:
    """The image files that files, folders and patterns name, without repetition.

    A file may have any name. In a folder, only files with an image's extension are taken.

    Raises:
        FileNotFoundError: one of them names no image.
    """
    paths: dict[str, str] = {}
    for item in inputs:
        if os.path.isdir(item):
            found = sorted(os.path.join(item, name) for name in os.listdir(item))
            found = [path for path in found if path.lower().endswith(EXTENSIONS)]
        else:
            found = [item] if os.path.isfile(item) else sorted(glob.glob(item, recursive=True))
            found = [path for path in found if not os.path.isdir(path)]
        if not found:
            raise FileNotFoundError(f"no image matches {item!r}")
        for path in found:
            paths.setdefault(os.path.abspath(path), path)
    return list(paths.values())


def output_names(paths: Sequence[str]) -> list[str]:
    """A name for each image's output: the image's name without folder and extension.

    Raises:
        ValueError: two images would have the same name.
    """
    names = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    for name in names:
        if names.count(name) > 1:
            same = [path for path, other in zip(paths, names) if other == name]
            raise ValueError(f"{', '.join(same)} would be written to the same picture")
    return names


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) of an image as :func:`read_image` reads it, from the head of its file.

    Raises:
        OSError, ValueError: no such file, or not an image.
    """
    path = os.fspath(path)
    try:
        if path.endswith(".npy"):
            height, width = _read_array(path).shape[:2]
            return height, width
        with _open(path) as f, Image.open(f) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except OSError:
        raise
    except Exception as error:  # PIL's own, such as DecompressionBombError
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    return (width, height) if turned else (height, width)


def read_image(path: str | os.PathLike, format: str | None = None) -> np.ndarray:
    """Detectron2's ``read_image``, with 16-bit grey scaled. (Detectron2's clips it at 255.)

    A 16-bit grey image is divided by 257 and rounded, so that 65535 becomes 255. (A file that uses
    only 12 bits is then dark, because it does not name its white.) The EXIF orientation is applied.

    Args:
        path: an image file; or a .npy file with an array (H, W, C) or (H, W), whose channels stay
            as they are.
        format: "BGR", "RGB", "L", "YUV-BT.601" or another mode of PIL; None leaves it as it is.

    Returns:
        (H, W, C) uint8; (H, W, 3) float for YUV. Of a .npy file with other channels than an image
        of PIL can have float32, which Detectron2 can resize.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, or pixels that do not fit into 8 bits: floating-point ones, and
            integers beyond 16 bits.
    """
    try:
        return read_pixels(os.fspath(path), format)
    except FileNotFoundError:
        raise FileNotFoundError(f"no image file {os.fspath(path)!r}") from None
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error


def as_array(image: Any, format: str | None) -> Any:
    """A path or a PIL image as :func:`read_image` reads it; anything else as it is."""
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, format)
    if isinstance(image, Image.Image):
        return _pixels(image, format)
    return image


def as_rgb(image: np.ndarray, input_format: str | None) -> np.ndarray:
    """What can be shown of an image of any channels: the first three, or the first in grey.

    Args:
        image: (H, W, C) or (H, W), values from 0 to 255.
        input_format: "BGR": the first three channels are turned round. "YUV-BT.601": converted.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: another shape.
    """
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"expected an image (H, W, C), got shape {image.shape}")
    if input_format == "YUV-BT.601":
        image = np.dot(image, _RGB_OF_YUV.T) * 255.0
    image = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, [0, 0, 0]]
    if input_format == "BGR":
        image = image[:, :, ::-1]
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))


def read_pixels(path: str, format: str | None) -> np.ndarray:
    """:func:`read_image` for callers that name the image in their own errors."""
    if path.endswith(".npy"):
        return _read_array(path)
    with _open(path) as f:
        return _pixels(Image.open(f), format)


def _open(path: str) -> Any:
    """A file to read. A path on another host goes through Detectron2's PathManager."""
    if not absent():
        from detectron2.utils.file_io import PathManager

        return PathManager.open(path, "rb")
    if "://" in path:
        raise ValueError(f"{path} is on another host, and only Detectron2 reads such files")
    return open(path, "rb")


def _read_array(path: str) -> np.ndarray:
    with _open(path) as f:
        pixels = np.load(f, allow_pickle=False)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.dtype.kind not in "uif":
        raise ValueError(
            f"an array of shape {pixels.shape}, {pixels.dtype}; expected (height, width, channels) "
            "of numbers"
        )
    fits = pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3, 4)
    return pixels if fits else pixels.astype(np.float32)


def _pixels(image: Image.Image, format: str | None) -> np.ndarray:
    """(H, W, C) of an image, upright, in a format of :func:`read_image`; (H, W) for None and the
    modes of one channel other than "L"."""
    image = _to_8_bits(_upright(image))
    if format is None:
        return np.asarray(image)
    if format not in ("BGR", "YUV-BT.601"):  # PIL does not know these
        pixels = np.asarray(image.convert(format))
        return pixels[:, :, None] if format == "L" else pixels
    pixels = np.asarray(image.convert("RGB"))
    return pixels[:, :, ::-1] if format == "BGR" else np.dot(pixels / 255.0, _YUV_OF_RGB.T)


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001 (of damaged EXIF; the pixels may be good)
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown; expected at most 16 bits")
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image)  # older PIL opens a 16-bit PNG as 32 bits, mode "I"
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise ValueError(f"integer pixels from {low} to {high}; expected 16 bits, 0 to 65535")
    return Image.fromarray(((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8))
