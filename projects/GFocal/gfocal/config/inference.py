"""The inference settings of a config: thresholds, top-k, limits, test-time augmentation."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..detectors.augmented import AugmentedDetector
from ..modeling.settings import RETINANET, check_setting
from .keys import Config
from .options import train_options

__all__ = ["augmented", "check_inference"]


def augmented(cfg: Config, model: nn.Module) -> AugmentedDetector | None:
    """The model with the test-time augmentation that a config asks for; None if it asks for none.

    Raises:
        TypeError: the model can have none.
        ValueError: its numbers are out of range.
    """
    options = train_options(cfg).test_augmentation
    if not options.enabled:
        return None
    try:
        return AugmentedDetector(model, options.min_sizes, options.max_size, options.flip)
    except (TypeError, ValueError) as error:
        message = f"train.test_augmentation (TEST.AUG): {error}"
        raise type(error)(message) from error


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
