"""Finds mistakes in a config before anything is built, also those that would show up late or never.

Overrides are checked when they are applied. These checks are for config files and code.
"""

import difflib
import inspect
import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine.defaults import create_ddp_model
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
from detectron2.utils.registry import Registry, locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.nn.parallel import DistributedDataParallel

from ..data.pipelines import check_augmentations
from ..modeling.settings import check_yacs
from .declaring import Kind
from .inference import check_inference
from .keys import Config, all_keys, arguments_of, one_line, unknown_key
from .levels import check_channels, check_format, check_levels
from .options import OPTIONS
from .verdicts import check_expected_results, check_verdicts
from .yacs import NORMS

__all__ = ["check_config", "check_model", "check_train"]


TRUE_OR_FALSE = Kind("true or false", lambda x: isinstance(x, bool))
NO_TEXT = Kind("no string", lambda x: not isinstance(x, str))
SECTIONS = ("model", "optimizer", "lr_multiplier", "dataloader")  # that LazyTrainer builds


def check_config(cfg: Config) -> None:
    """Checks a config for a training, and calls :func:`check_model`.

    In a LazyConfig it checks the keys below `train`, see :func:`check_train`, and every LazyCall
    that a training builds: its callable and the names of its arguments.

    Args:
        cfg: a LazyConfig or yacs config.

    Raises:
        ValueError: a misspelt key, a value of another kind or out of range, or a mistake that
            :func:`check_model` finds.
    """
    if isinstance(cfg, CfgNode):
        keys = set(all_keys(cfg))
        for option in OPTIONS:
            if option.yacs in keys and option.kind is not None:
                _check(option.yacs, attrgetter(option.yacs)(cfg), option.kind)
        check_verdicts(cfg)
        check_expected_results(cfg)
        check_augmentations(cfg)
        check_model(cfg)
        return
    check_train(cfg)
    for section in SECTIONS:
        node = OmegaConf.select(cfg, section)
        if OmegaConf.is_config(node):
            _check_calls(node, section)


def check_train(cfg: DictConfig) -> None:
    """Checks the keys below a LazyConfig's `train`. A key of your own is allowed, unless it
    resembles a key that is read.

    Raises:
        ValueError: a misspelt key, or a value of another kind or out of range.
    """
    train = OmegaConf.select(cfg, "train", default={})
    kinds = {option.key: option.kind for option in OPTIONS if option.kind} | _ddp_kinds()
    keys = [f"train.{name}" for name in kinds]
    groups = {name.partition(".")[0] for name in kinds if "." in name}
    _check("train", train, Kind("keys", lambda x: isinstance(x, Mapping)))
    for name in train:
        if name not in groups:
            _check_key_of_train(train, name, kinds)
            continue
        group = OmegaConf.select(train, name)
        if group is None:
            continue
        example = next(key for key in keys if key.startswith(f"train.{name}."))
        _check(f"train.{name}", group, Kind(f"keys: {example}", lambda x: isinstance(x, Mapping)))
        for part in group:
            if f"{name}.{part}" not in kinds:
                raise ValueError(unknown_key(f"train.{name}.{part}", "the config", keys))
            _check_key_of_train(train, f"{name}.{part}", kinds)
    if train.get("checkpointer") is not None and "period" not in train.checkpointer:
        raise ValueError("the config has train.checkpointer without its period")


def check_model(cfg: Config) -> None:
    """Checks the part of a config that describes the model.

    Args:
        cfg: a LazyConfig or yacs config.

    Raises:
        ValueError: a LazyConfig without `model`, with a callable that is not there, or with an
            argument that the callable does not have, or whose levels or channels do not fit
            together; a yacs config with a name that is not registered; a normalisation that
            Detectron2 does not know.
    """
    if isinstance(cfg, CfgNode):
        check_yacs(cfg)
        architecture = _registered(cfg, "MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY)
        if architecture.__module__.startswith(("detectron2.", "gfocal.")):  # others may need none
            _registered(cfg, "MODEL.BACKBONE.NAME", BACKBONE_REGISTRY)
            check_format("INPUT.FORMAT", cfg.INPUT.FORMAT)
        keys = set(all_keys(cfg))
        for key in NORMS:
            if key in keys:
                _check_norm(key, attrgetter(key)(cfg))
        return
    if OmegaConf.select(cfg, "model") is None:
        raise ValueError("the config has no 'model'")
    _check_calls(cfg.model, "model")
    check_levels(cfg)
    check_channels(cfg)


def _registered(cfg: CfgNode, key: str, registry: Registry) -> Any:
    name = attrgetter(key)(cfg)
    if name not in registry:
        names = [registered for registered, _ in registry]
        nearest = difflib.get_close_matches(str(name), names, n=3) or sorted(names)
        raise ValueError(f"{key} is {name!r}; expected a registered one, e.g. {', '.join(nearest)}")
    return registry.get(name)


def _check(key: str, value: Any, kind: Kind) -> None:
    if not kind.fits(value):
        raise ValueError(f"{key} is {value!r}; expected {kind.expected}")


def _check_key_of_train(train: DictConfig, name: str, kinds: Mapping[str, Kind]) -> None:
    if name in kinds:
        try:
            value = OmegaConf.select(train, name)  # a missing one ("???") becomes None
        except OmegaConfBaseException as error:
            expected = kinds[name].expected
            raise ValueError(f"train.{name}: {one_line(error)}; expected {expected}") from error
        _check(f"train.{name}", value, kinds[name])
    elif (known := _resembled(str(name), kinds)) is not None:
        raise ValueError(
            f"the config has train.{name}, which nothing reads; did you mean train.{known}? "
            "(A key of your own needs a name that is less alike.)"
        )


def _ddp_kinds() -> dict[str, Kind]:
    """The keys that `train.ddp` takes: arguments of DistributedDataParallel, and Detectron2's."""
    ret = {}
    for function in (DistributedDataParallel, create_ddp_model):
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not parameter.empty:
                flag = isinstance(parameter.default, bool)
                ret[f"ddp.{name}"] = TRUE_OR_FALSE if flag else NO_TEXT
    return ret


def _resembled(name: str, known: Mapping[str, Any]) -> str | None:
    """The key that the writer of a key of `train` probably meant. It is spelt alike, or has a group
    in front, or begins with the same word and has all the others, perhaps cut short (val_loss).
    """
    top = {key.partition(".")[0]: key for key in known}
    if nearest := difflib.get_close_matches(name.lower(), top, n=1, cutoff=0.85):
        return nearest[0]
    words = name.lower().split("_")
    if len(words) == 1:
        return next((option.key for option in OPTIONS if option.short == words[0]), None)
    for key in known:
        if key == f"ddp.{name}":
            return key
        parts = re.split(r"[._]", key)
        if _same(words[0], parts[0]) and all(any(_same(w, x) for x in parts) for w in words):
            return key
    return None


def _same(a: str, b: str) -> bool:
    return min(len(a), len(b)) >= 3 and (a.startswith(b) or b.startswith(a))


def _check_calls(node: DictConfig | ListConfig, key: str) -> None:
    """Checks every LazyCall of a config, as far as this is possible without building it."""
    if isinstance(node, DictConfig) and "_target_" in node:
        _check_call(node, key)
    for name in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):
            continue
        if OmegaConf.is_config(node[name]):
            _check_calls(node[name], f"{key}.{name}")


def _check_call(node: DictConfig, key: str) -> None:
    target = OmegaConf.select(node, "_target_", throw_on_resolution_failure=False)
    if isinstance(target, str):
        try:
            target = locate(target)
        except (ImportError, ValueError):
            raise ValueError(
                f"{key}._target_ is {target!r}, which cannot be imported; expected the dotted name "
                "of a class or function"
            ) from None
    if OmegaConf.is_config(target):  # which makes the callable
        return
    _check(f"{key}._target_", target, Kind("a class or function", callable))
    arguments = arguments_of(node)
    from_cfg = hasattr(target, "from_config") and "cfg" in node  # Detectron2's @configurable
    if "**" not in arguments and not from_cfg:
        for name in map(str, node):
            if name != "_target_" and name not in arguments:
                where = (
                    f"the config ({getattr(target, '__qualname__', target)} has no such argument)"
                )
                valid = [f"{key}.{argument}" for argument in arguments]
                raise ValueError(unknown_key(f"{key}.{name}", where, valid))
    module = getattr(target, "__module__", None) or ""
    if module.startswith(("detectron2.", "gfocal.")):
        norm = OmegaConf.select(node, "norm", throw_on_resolution_failure=False)
        _check_norm(f"{key}.norm", norm)
        check_inference(node, key, target)


def _check_norm(key: str, norm: Any) -> None:
    try:
        if isinstance(norm, str):
            get_norm(norm, 32)
    except KeyError:
        raise ValueError(
            f"{key} is {norm!r}; expected what Detectron2's get_norm knows, e.g. GN, BN, SyncBN, "
            'FrozenBN, or "" for none'
        ) from None
