"""A look at the mapping of a dataset before the first iteration: what lacks a package, what draws
random numbers that nobody can repeat."""

import importlib.util
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.structures import Instances

from ..process.generators import reachable
from .loader import TrainLoader

__all__ = ["check_packages", "probe_images", "probe_train_loader"]

_INSTALL = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image"}
_MAX_SECONDS = 2.0  # for images whose mapping takes long


def probe_train_loader(loader: Any, model: Any = None) -> None:
    """Maps up to eight images of a loader twice, each with the same random states.

    It leaves no trace in the global random states. An image that cannot be mapped is left to the
    training, which names it.

    Args:
        loader: of :func:`gfocal.data.build_train_loader`; another one is not looked at.
        model: that is trained; the images' channels are compared with its ``pixel_mean``, if any.

    Raises:
        ValueError: a package is not installed, or the images have other channels than the model.
    """
    if not isinstance(loader, TrainLoader):
        return
    check_packages(loader.mapper)
    mapped = loader.mapped()
    count = len(loader.dataset)
    pairs = [partial(mapped.__getitem__, (place, place % count)) for place in range(8)]
    mean = getattr(model, "pixel_mean", None)
    if not probe_images(pairs, None if mean is None else len(mean)):
        logging.getLogger(__name__).warning(
            f"The mapper {type(loader.mapper).__name__} gives other images for the same random "
            "states, so this training can be neither repeated nor resumed exactly. A part of it "
            "draws random numbers that this loader cannot seed, or changes with each call. Let it "
            "draw from random, numpy.random or torch, or from a generator (numpy.random.Generator, "
            "random.Random, torch.Generator) that is an attribute of it"
        )


def probe_images(makers: Sequence[Callable[[], Any]], channels: int | None = None) -> bool:
    """Whether each of these functions answers the same twice; at least one is tried, and no
    further ones after two seconds.

    Args:
        makers: each makes a model's input.
        channels: expected of its image; None for any number.

    Raises:
        ValueError: a package is not installed, or an image has other channels.
    """
    start = time.perf_counter()
    for make in makers:
        try:
            first, second = make(), make()
        except Exception as error:  # noqa: BLE001  (of any kind; the training will name the image)
            _refuse_missing_package(error)
            continue
        _check_channels(first, channels)
        if not _same(first, second):
            return False
        if time.perf_counter() - start > _MAX_SECONDS:
            break
    return True


def check_packages(part: Any) -> None:
    """Looks for augmentations that need a package that is not there, inside of others too.

    Raises:
        ValueError: there is one; the message names it and the package.
    """
    for item in reachable(part):
        # Detectron2 imports OpenCV if it is there, and fails when an image is turned.
        turns = isinstance(item, (T.RandomRotation, T.RotationTransform))
        if turns and importlib.util.find_spec("cv2") is None:
            raise ValueError(_missing("cv2", type(item).__name__))


def _check_channels(mapped: Any, channels: int | None) -> None:
    image = mapped.get("image") if isinstance(mapped, Mapping) else None
    if channels is None or not isinstance(image, torch.Tensor) or image.dim() != 3:
        return
    if len(image) not in (1, channels):  # one would be broadcast; GFL refuses it
        raise ValueError(
            f"{mapped.get('file_name', 'the first training image')} is mapped to {len(image)} "
            f"channels, and the model's pixel_mean has {channels}; expected as many (the mapper's "
            "image_format is model.input_format or INPUT.FORMAT)"
        )


def _missing(package: str, who: str) -> str:
    name = _INSTALL.get(package, package)
    return f"{who} needs the package {package}, which is not installed: pip install {name}"


def _refuse_missing_package(error: BaseException) -> None:
    """Raises ValueError if an error came of an import that failed, now or earlier."""
    cause: BaseException | None = error
    while cause is not None:
        package = getattr(cause, "name", None)
        if isinstance(cause, (ImportError, NameError)) and package:
            package = package.partition(".")[0]
            # A name that is not defined is a package only if it is known as one.
            known = isinstance(cause, ImportError) or package in (*_INSTALL, "scipy", "shapely")
            if known and importlib.util.find_spec(package) is None:
                who = _who(cause.__traceback__)
                raise ValueError(_missing(package, who)) from error
        cause = cause.__cause__ or cause.__context__


def _who(traceback: TracebackType | None) -> str:
    """The innermost augmentation or transform in which an error was raised."""
    name = "the mapper"
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        if isinstance(owner, (T.Augmentation, T.Transform)):
            name = type(owner).__name__
        traceback = traceback.tb_next
    return name


def _same(a: Any, b: Any) -> bool:
    """Whether two mapped images are equal, as far as their types can be compared."""
    if isinstance(a, Instances) and isinstance(b, Instances):
        return a.image_size == b.image_size and _same(a.get_fields(), b.get_fields())
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if hasattr(a, "tensor") and hasattr(b, "tensor"):  # Boxes, masks, ...
        a, b = a.tensor, b.tensor
    if hasattr(a, "polygons") and hasattr(b, "polygons"):
        a, b = a.polygons, b.polygons
        return _same(a, b)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        equal = torch.allclose if a.shape == b.shape else None
        return equal is not None and equal(a.double(), b.double(), 0, 0, equal_nan=True)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and np.array_equal(a, b)
    if isinstance(a, (str, int, float)) and isinstance(b, (str, int, float)):
        return repr(a) == repr(b)  # nan is nan
    return type(a) is type(b)
