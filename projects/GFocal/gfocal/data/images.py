"""Reading image files, and finding them."""

import glob
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from detectron2.data import detection_utils as utils
from detectron2.utils.file_io import PathManager
from PIL import Image

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
        with PathManager.open(path, "rb") as f, Image.open(f) as image:
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
        upright = utils._apply_exif_orientation(image)
        return utils.convert_PIL_to_numpy(_to_8_bits(upright), format)
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
        image = utils.convert_image_to_rgb(image, input_format)
    image = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, [0, 0, 0]]
    if input_format == "BGR":
        image = image[:, :, ::-1]
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))


def read_pixels(path: str, format: str | None) -> np.ndarray:
    """:func:`read_image` for callers that name the image in their own errors."""
    if path.endswith(".npy"):
        return _read_array(path)
    with PathManager.open(path, "rb") as f:
        upright = utils._apply_exif_orientation(Image.open(f))
        return utils.convert_PIL_to_numpy(_to_8_bits(upright), format)


def _read_array(path: str) -> np.ndarray:
    with PathManager.open(path, "rb") as f:
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
