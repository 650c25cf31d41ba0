"""Training and inference from LazyConfigs and yacs configs."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names, names_of

if TYPE_CHECKING:  # what the table below says
    from ..config import apply_overrides as apply_overrides
    from ..config import check_config as check_config
    from ..config import check_model as check_model
    from ..config import config_settings as config_settings
    from ..config import load_config as load_config
    from ..config import resolve_device as resolve_device
    from ..config import set_device as set_device
    from .base import BaseTrainer as BaseTrainer
    from .launching import launch as launch
    from .lazy_trainer import LazyTrainer as LazyTrainer
    from .predictor import Predictor as Predictor
    from .steps import AutocastTrainer as AutocastTrainer
    from .teachers import EMATeacher as EMATeacher
    from .teachers import FrozenTeacher as FrozenTeacher
    from .trainer import Trainer as Trainer
    from .trainer import trainer_class as trainer_class

_LAZY = names_of(
    {
        "..config": "apply_overrides check_config check_model config_settings load_config "
        "resolve_device set_device",
        ".base": "BaseTrainer",
        ".launching": "launch",
        ".lazy_trainer": "LazyTrainer",
        ".predictor": "Predictor",
        ".steps": "AutocastTrainer",
        ".teachers": "EMATeacher FrozenTeacher",
        ".trainer": "Trainer trainer_class",
    }
)
__all__ = list(_LAZY)
__getattr__, __dir__ = lazy_names(__name__, _LAZY)
