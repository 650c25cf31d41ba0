"""Training and inference from LazyConfigs and yacs configs."""

from ..config import (
    apply_overrides,
    check_config,
    check_model,
    config_settings,
    load_config,
    resolve_device,
    set_device,
)
from .base import BaseTrainer
from .launch import launch
from .lazy_trainer import LazyTrainer
from .predictor import Predictor
from .steps import AutocastTrainer
from .trainer import Trainer, trainer_class

__all__ = [
    "AutocastTrainer",
    "BaseTrainer",
    "LazyTrainer",
    "Predictor",
    "Trainer",
    "apply_overrides",
    "check_config",
    "check_model",
    "config_settings",
    "launch",
    "load_config",
    "resolve_device",
    "set_device",
    "trainer_class",
]
