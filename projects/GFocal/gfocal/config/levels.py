"""Do the levels and the channels of a model fit together? Found in its config, before it is built.

A level is in up to six places of a config: the backbone's out_features, the FPN's in_features and
top block, the model's head_in_features, the head's num_levels, the anchors' sizes and strides. A
value that cannot be known from the config is not checked here; the model's own checks follow.
"""

import inspect
import re
from typing import Any

from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import ResNet
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from ..backbones.necks import LinearP6P7
from .keys import parameters_of

__all__ = ["check_channels", "check_format", "check_levels"]

_TOP_BLOCKS = {LinearP6P7: 2, LastLevelP6P7: 2, LastLevelMaxPool: 1}  # numbers of their levels


def check_levels(cfg: DictConfig) -> None:
    """Checks the levels of a LazyConfig's model with an FPN on a ResNet.

    Raises:
        ValueError: two keys do not fit together; the message names both, and what is expected.
    """
    if _target(cfg, "model.backbone") is not FPN:
        return
    names = _pyramid(cfg)
    if names is None:
        return
    head_in = _value(cfg, "model.head_in_features")
    if head_in is None:
        return
    if unknown := [x for x in head_in if x not in names]:
        raise ValueError(
            f"model.head_in_features has {unknown}, but model.backbone makes {names}, of "
            "model.backbone.in_features and model.backbone.top_block"
        )
    levels = f"the {len(head_in)} levels {head_in} of model.head_in_features"
    _expect(cfg, "model.head.num_levels", len(head_in), levels)
    strides = [2 ** int(x[1:]) for x in head_in]
    _expect(cfg, "model.anchor_generator.strides", strides, levels)
    sizes = _value(cfg, "model.anchor_generator.sizes")
    if sizes is not None and len(sizes) not in (1, len(head_in)):
        raise ValueError(
            f"model.anchor_generator.sizes is {sizes}; expected a list for each of {levels}"
        )


def check_channels(cfg: DictConfig) -> None:
    """Checks the channels of a LazyConfig's images: of the format that the loaders read, of
    `pixel_mean` and `pixel_std`, and of the stem.

    Raises:
        ValueError: two of them differ; the message names the keys.
    """
    mean = _value(cfg, "model.pixel_mean")
    if mean is None:
        return
    channels = f"the {len(mean)} channels of model.pixel_mean"
    std = _value(cfg, "model.pixel_std")
    if std is not None and len(std) != len(mean):
        raise ValueError(
            f"model.pixel_std is {std}; expected a number for each of {channels} {mean}"
        )
    for key in ("model.backbone.bottom_up.stem", "model.backbone.stem"):
        _expect(cfg, f"{key}.in_channels", len(mean), channels)
    for loader in ("train", "test"):
        key = f"dataloader.{loader}.mapper.image_format"
        image_format = _value(cfg, key)
        number = channels_of(image_format)
        mapper = getattr(_target(cfg, f"dataloader.{loader}.mapper"), "__module__", "")
        if mapper.startswith(("gfocal.", "detectron2.")):  # another may read other formats
            check_format(key, image_format, " (usually it is model.input_format)")
        if number is not None and number != len(mean):
            raise ValueError(
                f"{key} is {image_format!r}, of {number} channels (usually it is "
                f"model.input_format); expected {channels} {mean}. model.pixel_std and the stem's "
                "in_channels have as many"
            )


def check_format(key: str, image_format: Any, hint: str = "") -> None:
    """Checks that the loaders can read an image format: one of Detectron2's, or a mode of PIL.

    Raises:
        ValueError: neither.
    """
    if image_format is None or channels_of(image_format) is not None:
        return
    try:
        Image.new("RGB", (1, 1)).convert(image_format)
    except (TypeError, ValueError):
        raise ValueError(
            f"{key} is {image_format!r}{hint}; expected BGR, RGB, L, YUV-BT.601, RGBA or another "
            "mode of PIL"
        ) from None


def channels_of(image_format: Any) -> int | None:
    """The number of channels of an image format; None for one that this does not know."""
    known = {"L": 1, "1": 1, "RGB": 3, "BGR": 3, "YUV-BT.601": 3, "RGBA": 4, "CMYK": 4, "LA": 2}
    return known.get(image_format)


def _pyramid(cfg: DictConfig) -> list[str] | None:
    """Names of the FPN's maps, finest first."""
    backbone = "model.backbone"
    inputs = _value(cfg, f"{backbone}.in_features")
    outputs = _value(cfg, f"{backbone}.bottom_up.out_features")
    if inputs is None or not all(re.fullmatch(r"res\d", str(x)) for x in inputs):
        return None
    if _target(cfg, f"{backbone}.bottom_up") is not ResNet:
        outputs = None  # another network may name its maps in another way
    if missing := [x for x in inputs if x not in (outputs or inputs)]:
        raise ValueError(
            f"{backbone}.in_features has {missing}; expected some of "
            f"{backbone}.bottom_up.out_features, {outputs}, or these with {missing} added"
        )
    stages = [int(x[3:]) for x in inputs]
    if not stages or stages != list(range(stages[0], stages[0] + len(stages))):
        raise ValueError(
            f"{backbone}.in_features is {inputs}; expected stages one after the other, finest "
            "first, e.g. ['res3', 'res4', 'res5']"
        )
    extra = _top_levels(cfg, stages[-1])
    if extra is None:
        return None
    return [f"p{x}" for x in range(stages[0], stages[-1] + 1 + extra)]


def _top_levels(cfg: DictConfig, last: int) -> int | None:
    """How many levels the top block adds to the pyramid, whose last stage is ``last``."""
    key = "model.backbone.top_block"
    if OmegaConf.select(cfg, key, default=None) is None:
        return 0
    target = _target(cfg, key)
    if target not in _TOP_BLOCKS:
        return None
    parameter = parameters_of(cfg.model.backbone.top_block).get("in_feature")
    default = "p5" if parameter is None else parameter.default
    in_feature = _value(cfg, f"{key}.in_feature")
    if in_feature is None and default is not inspect.Parameter.empty:
        in_feature = default
    if in_feature is not None and in_feature not in (f"p{last}", f"res{last}"):
        raise ValueError(
            f"{key}.in_feature is {in_feature!r}; expected 'p{last}' or 'res{last}', the last of "
            "model.backbone.in_features"
        )
    return _TOP_BLOCKS[target]


def _expect(cfg: DictConfig, key: str, expected: Any, of: str) -> None:
    value = _value(cfg, key)
    if value is not None and value != expected:
        raise ValueError(f"{key} is {value!r}; expected {expected!r}, for {of}")


def _target(cfg: DictConfig, key: str) -> Any:
    return _value(cfg, f"{key}._target_")


def _value(cfg: DictConfig, key: str) -> Any:
    """A value as plain Python; None if the config does not say it."""
    try:
        value = OmegaConf.select(cfg, key, default=None)
    except OmegaConfBaseException:
        return None
    if OmegaConf.is_config(value):
        if isinstance(value, DictConfig):
            return None  # a LazyCall makes it
        return OmegaConf.to_container(value, resolve=True)
    return value
