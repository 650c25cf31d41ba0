"""Checks the inference settings of a LazyConfig: thresholds, top-k, limits."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..modeling.settings import RETINANET, check_setting

__all__ = ["check_inference"]


def check_inference(node: DictConfig, key: str, target: Any) -> None:
    """Checks the settings among the arguments of one LazyCall.

    Args:
        node: the LazyCall.
        key: its place in the config, for the error message.
        target: its callable. Its ``SETTINGS`` have the allowed values; without them, arguments
            with the names of RetinaNet's are checked as these.

    Raises:
        ValueError: a value is out of its range; the message has the key.
    """
    for name, setting in getattr(target, "SETTINGS", RETINANET).items():
        if name in node and not OmegaConf.is_missing(node, name):
            value = OmegaConf.select(node, name, throw_on_resolution_failure=False)
            if OmegaConf.is_config(value):
                value = OmegaConf.to_container(value, resolve=True)
            check_setting(f"{key}.{name}", value, setting)
