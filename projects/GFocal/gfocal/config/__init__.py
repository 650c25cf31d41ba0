"""Options, config files and overrides, and the checks of all three: all that a user may write."""

from . import model_zoo
from .checks import check_config, check_model, check_train
from .files import load_config
from .inference import augmented
from .keys import Config
from .options import TrainOptions, train_node, train_options
from .overrides import apply_overrides
from .settings import (
    ConfigSettings,
    config_settings,
    resolve_device,
    set_device,
    set_reliability,
    set_weights,
    without_pretraining,
)
from .yacs import add_gfocal_config

__all__ = [
    "Config",
    "ConfigSettings",
    "TrainOptions",
    "add_gfocal_config",
    "apply_overrides",
    "augmented",
    "check_config",
    "check_model",
    "check_train",
    "config_settings",
    "load_config",
    "model_zoo",
    "resolve_device",
    "set_device",
    "set_reliability",
    "set_weights",
    "train_node",
    "train_options",
    "without_pretraining",
]
