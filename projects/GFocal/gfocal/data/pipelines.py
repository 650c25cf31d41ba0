"""The published augmentations of SSD, CenterNet and CornerNet: the one source of the fragments
configs/common/data_*.py and of the yacs key INPUT.AUGMENTATIONS.

Each function answers the LazyCalls of a training's or a test's augmentations, in their order. Their
arguments may be references to other keys of a config. Sizes are in pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import detectron2.data.transforms as T
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.config import LazyCall as L
from detectron2.data.detection_utils import build_augmentation

from .transforms import (
    CenterPad,
    MinIoURandomCrop,
    PhotometricDistortion,
    RandomCenterCropPad,
    RandomExpand,
)

__all__ = [
    "PIPELINES",
    "centernet_augmentations",
    "check_augmentations",
    "cornernet_augmentations",
    "ssd_augmentations",
    "yacs_augmentations",
]


def ssd_augmentations(
    is_train: bool, *, mean: Any, image_format: Any, size: Any = 512
) -> list[Any]:
    """Of SSD: every image is resized to ``size`` x ``size``, without keeping its ratio.

    Args:
        is_train: of a training, else of a test.
        mean: colour around an expanded image: the model's pixel_mean.
        image_format: "RGB" or "BGR", the order of the channels.
        size: of the network's input.
    """
    if not is_train:
        return [L(T.Resize)(shape=size)]
    return [
        L(RandomExpand)(mean=mean, ratio_range=[1, 4]),
        L(MinIoURandomCrop)(min_ious=[0.1, 0.3, 0.5, 0.7, 0.9], min_crop_size=0.3),
        L(T.Resize)(shape=size),
        L(T.RandomFlip)(horizontal=True),
        L(PhotometricDistortion)(image_format=image_format),
    ]


def centernet_augmentations(
    is_train: bool, *, mean: Any = None, image_format: Any, size: Any = 512
) -> list[Any]:
    """Of CenterNet: windows of ``size`` x ``size``; a test keeps the size of an image, and pads it.
    Padding is black, as published.

    Args: see :func:`ssd_augmentations`; ``mean`` is not read.
    """
    return _of_heat_maps(is_train, 0.0, image_format, size, multiple=31, extra=1)


def cornernet_augmentations(
    is_train: bool, *, mean: Any, image_format: Any, size: Any = 511
) -> list[Any]:
    """Of CornerNet in MMDetection: as CenterNet's, with padding of the mean colour.

    Args: see :func:`ssd_augmentations`.
    """
    return _of_heat_maps(is_train, mean, image_format, size, multiple=127, extra=0)


def _of_heat_maps(
    is_train: bool, mean: Any, image_format: Any, size: Any, multiple: int, extra: int
) -> list[Any]:
    if not is_train:
        return [L(CenterPad)(mean=mean, multiple=multiple, extra=extra)]
    return [
        L(PhotometricDistortion)(image_format=image_format),
        L(RandomCenterCropPad)(crop_size=size, mean=mean, border=128),
        L(T.Resize)(shape=size),  # of a square, whose ratio it keeps
        L(T.RandomFlip)(horizontal=True),
    ]


# INPUT.AUGMENTATIONS: the function, and INPUT.SIZE where that is 0. (An SSD knows its own.)
PIPELINES: dict[str, tuple[Callable[..., list[Any]], int]] = {
    "ssd": (ssd_augmentations, 512),
    "centernet": (centernet_augmentations, 512),
    "cornernet": (cornernet_augmentations, 511),
}

# Keys of INPUT that only Detectron2's own augmentations read.
_OF_DETECTRON2 = (
    "MIN_SIZE_TRAIN",
    "MIN_SIZE_TRAIN_SAMPLING",
    "MAX_SIZE_TRAIN",
    "MIN_SIZE_TEST",
    "MAX_SIZE_TEST",
    "RANDOM_FLIP",
    "CROP",
)


def yacs_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """The augmentations of a yacs config: those of INPUT.AUGMENTATIONS, or Detectron2's own.

    Raises:
        ValueError: see :func:`check_augmentations`.
    """
    check_augmentations(cfg)
    name = cfg.INPUT.get("AUGMENTATIONS", "default")
    if name == "default":
        crop = cfg.INPUT.CROP
        first = [T.RandomCrop(crop.TYPE, crop.SIZE)] if crop.ENABLED and is_train else []
        return first + build_augmentation(cfg, is_train)
    pipeline, size = PIPELINES[name]
    calls = pipeline(
        is_train,
        mean=list(cfg.MODEL.PIXEL_MEAN),
        image_format=cfg.INPUT.FORMAT,
        size=cfg.INPUT.SIZE or (_size_of_ssd(cfg) if name == "ssd" else None) or size,
    )
    return [instantiate(call) for call in calls]


def check_augmentations(cfg: CfgNode) -> None:
    """Checks INPUT.AUGMENTATIONS and INPUT.SIZE of a yacs config, where it has them.

    Raises:
        ValueError: an unknown name, a size that is none or that nothing reads, another one than an
            SSD is made for, or a change of a key that these augmentations do not read.
    """
    name, size = cfg.INPUT.get("AUGMENTATIONS", "default"), cfg.INPUT.get("SIZE", 0)
    if name != "default" and name not in PIPELINES:
        names = ", ".join(map(repr, ("default", *PIPELINES)))
        raise ValueError(f"INPUT.AUGMENTATIONS is {name!r}; expected one of {names}")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(f"INPUT.SIZE is {size!r}; expected pixels, or 0 for the published size")
    if name == "default":
        if size:
            raise ValueError(
                f"INPUT.SIZE is {size}, but INPUT.AUGMENTATIONS is 'default'; expected 0 (sizes "
                "are INPUT.MIN_SIZE_TRAIN and so on), or one of " + ", ".join(map(repr, PIPELINES))
            )
        return
    expected = _size_of_ssd(cfg)
    if name == "ssd" and size and expected and size != expected:
        raise ValueError(
            f"INPUT.SIZE is {size}, and MODEL.SSD.INPUT_SIZE, which the levels and priors are of, "
            f"is {expected}; expected the same, or INPUT.SIZE 0"
        )
    defaults = get_cfg().INPUT
    changed = [
        f"INPUT.{key} is {_plain(cfg.INPUT[key])!r}, its default {_plain(defaults[key])!r}"
        for key in _OF_DETECTRON2
        if _plain(cfg.INPUT[key]) != _plain(defaults[key])
    ]
    if changed:
        raise ValueError(
            f"INPUT.AUGMENTATIONS is {name!r}, which reads INPUT.SIZE and INPUT.FORMAT alone; "
            f"expected the defaults of the others: {'; '.join(changed)}"
        )


def _size_of_ssd(cfg: CfgNode) -> int | None:
    """The side of the images that an SSD is made for; None of another detector."""
    return cfg.MODEL.SSD.INPUT_SIZE if cfg.MODEL.META_ARCHITECTURE == "SSD" else None


def _plain(value: Any) -> Any:
    """A value with lists for tuples: a config that was dumped has these."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return [_plain(x) for x in value] if is_list else value
