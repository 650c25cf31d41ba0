"""Settings of a run in both kinds of config, and its device."""

from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from omegaconf import OmegaConf

from .keys import Config
from .options import TrainOptions

__all__ = [
    "ConfigSettings",
    "config_settings",
    "resolve_device",
    "set_device",
    "set_reliability",
    "set_weights",
]


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
