"""Settings of a run in both kinds of config, and its device."""

import copy
from typing import Any, NamedTuple, TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf

from ..backbones import TimmBackbone
from .keys import Config
from .options import TrainOptions

__all__ = [
    "ConfigSettings",
    "config_settings",
    "resolve_device",
    "set_device",
    "set_reliability",
    "set_weights",
    "without_pretraining",
]

C = TypeVar("C", bound=Config)


class ConfigSettings(NamedTuple):
    """Settings that both kinds of config have, under one name each.

    Attributes:
        output_dir: `train.output_dir` or `OUTPUT_DIR`.
        weights: `train.init_checkpoint` or `MODEL.WEIGHTS`; empty for none.
        device: `train.device` or `MODEL.DEVICE`; None if the config does not name one.
    """

    output_dir: str
    weights: str
    device: str | None


def config_settings(cfg: Config) -> ConfigSettings:
    """Returns the output folder, the weights and the device that a config names."""
    if isinstance(cfg, CfgNode):
        return ConfigSettings(cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE)
    return ConfigSettings(
        OmegaConf.select(cfg, "train.output_dir", default=TrainOptions.output_dir),
        OmegaConf.select(cfg, "train.init_checkpoint", default=None) or "",
        OmegaConf.select(cfg, "train.device", default=TrainOptions.device),
    )


def set_device(cfg: Config, device: str) -> None:
    """Sets the device that a config names."""
    if isinstance(cfg, CfgNode):
        cfg.MODEL.DEVICE = device
    else:
        OmegaConf.update(cfg, "train.device", device)


def set_weights(cfg: Config, weights: str) -> None:
    """Sets the weights that a config names."""
    if isinstance(cfg, CfgNode):
        cfg.MODEL.WEIGHTS = weights
    else:
        OmegaConf.update(cfg, "train.init_checkpoint", weights)


def set_reliability(cfg: Config) -> None:
    """Lets a config's evaluations measure reliability too."""
    if isinstance(cfg, CfgNode):
        cfg.TEST.RELIABILITY = True
    else:
        OmegaConf.update(cfg, "train.reliability", True, force_add=True)


def without_pretraining(cfg: C) -> C:
    """A copy of a config, or of its `model`, for a model that gets all of its weights afterwards:
    no TimmBackbone loads or downloads any before."""
    cfg = cfg.clone() if isinstance(cfg, CfgNode) else copy.deepcopy(cfg)
    if not isinstance(cfg, CfgNode):
        _drop_pretraining(cfg)
    return cfg


def _drop_pretraining(node: Any) -> None:
    if isinstance(node, DictConfig) and _is_timm(node.get("_target_")):
        for name in ("pretrained", "weights"):
            node.pop(name, None)
    names: Any = node if isinstance(node, DictConfig) else range(len(node))
    for name in names:
        if not (OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name)):
            child = node[name]
            if isinstance(child, (DictConfig, ListConfig)):
                _drop_pretraining(child)


def _is_timm(target: Any) -> bool:
    try:
        target = locate(target) if isinstance(target, str) else target
    except ImportError:  # the model's own error comes when it is built
        return False
    return isinstance(target, type) and issubclass(target, TimmBackbone)


def resolve_device(name: str | None = None) -> torch.device:
    """Returns the device of that name. Without a name it is cuda if there is one, else cpu.

    Raises:
        ValueError: no such device, or cuda on a machine without it.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(
            f"the config asks for device {name!r}; expected cpu, cuda, cuda:0 or another that "
            "PyTorch knows"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"the config asks for device {name!r}, but PyTorch sees no CUDA device here; "
            "set train.device=cpu (LazyConfig) or MODEL.DEVICE=cpu (yacs)"
        )
    return device
