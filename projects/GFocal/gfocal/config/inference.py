"""The inference settings of a config: thresholds, top-k, limits, test-time augmentation."""

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..detectors.augmented import AugmentedDetector
from ..modeling.settings import RETINANET, check_setting, index_of_class
from .keys import Config
from .options import train_options

__all__ = ["augmented", "check_inference", "read_names_of_thresholds"]


def augmented(cfg: Config, model: nn.Module) -> AugmentedDetector | None:
    """The model with the test-time augmentation that a config asks for; None if it asks for none.

    Raises:
        ValueError: the model can have none, or its numbers are out of range.
    """
    options = train_options(cfg).test_augmentation
    if not options.enabled:
        return None
    try:
        return AugmentedDetector(model, options.min_sizes, options.max_size, options.flip)
    except (TypeError, ValueError) as error:
        raise ValueError(f"train.test_augmentation (TEST.AUG): {error}") from error


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


def read_names_of_thresholds(cfg: Config, names: list[str]) -> None:
    """Thresholds by class name are understood where the weights alone know the names.

    Args:
        cfg: a config that can be changed.
        names: of the K classes, from the weights.

    Raises:
        ValueError: a yacs config has a name that is none of them.
    """
    if isinstance(cfg, CfgNode):
        datasets = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)
        if "GFL" in cfg.MODEL and not any(x in MetadataCatalog.list() for x in datasets):
            pairs = cfg.MODEL.GFL.SCORE_THRESH_PER_CLASS
            cfg.MODEL.GFL.SCORE_THRESH_PER_CLASS = [
                [index_of_class(x[0], len(names), names), *x[1:]]
                if isinstance(x, (list, tuple)) and x and isinstance(x[0], str)
                else x
                for x in pairs
            ]
        return
    thresh = OmegaConf.select(cfg, "model.test_score_thresh", default=None)
    by_name = isinstance(thresh, Mapping) and any(
        isinstance(key, str) and key != "default" for key in thresh
    )
    if by_name and OmegaConf.select(cfg, "model.class_names", default=None) is None:
        cfg.model.class_names = names
