"""Configs as data in a file of weights, and back. Reading runs no code of the file."""

import copy
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import detectron2
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..config import Config, add_gfocal_config, resolve_device
from .trusted import dotted_name, trusted_callable

__all__ = ["OUTPUT", "config_of", "tree_of"]

OUTPUT = "./output/evaluation"  # of an evaluation whose config comes from the weights

# What a training needs and an evaluation does not: it stays data.
_OF_TRAINING = ("optimizer", "lr_multiplier", "dataloader.train", "model.teacher")
_CALLABLE = "_callable_"  # {"_callable_": name} stands for a class or function that is an argument
_INTERPOLATION = re.compile(r"\$\{[\w.\[\]]+\}")  # of another key; a resolver could be any code


def tree_of(cfg: DictConfig, num_classes: int | None) -> dict[str, Any]:
    """A LazyConfig as data: names for callables, and no value that another file decides.

    Args:
        cfg: the config.
        num_classes: K, which a config may leave to a json; None if it is not known.

    Returns:
        Dicts, lists, strings, numbers. References to other keys stay references.

    Raises:
        ValueError: a value is neither, nor a class or function with a name.
    """
    cfg = copy.deepcopy(cfg)
    model: Any = cfg.get("model") or {}
    owners: list[Any] = [model, model.get("roi_heads") or {}]  # the second stage of an R-CNN
    for owner in owners:
        if num_classes is None or "num_classes" not in owner:
            continue
        node = owner._get_node("num_classes")
        node = node._dereference_node()  # in `data`, say, where it is read from a json
        OmegaConf.update(cfg, node._get_full_key(None), num_classes, merge=False)
    _resolve_what_is_left_out(cfg)
    return _as_data(OmegaConf.to_container(cfg, resolve=False), "")


def config_of(kind: str, data: Any, path: str, trusted_packages: Sequence[str] = ()) -> Config:
    """The config that weights carry, without the parts that only a training needs.

    Args:
        kind: "lazy" or "yacs".
        data: what :func:`tree_of` gave, or yacs' text.
        path: of the weights, for errors.
        trusted_packages: packages, or modules of them, whose callables it may name.

    Raises:
        ValueError: it is not the config of a model, or names a callable that is not trusted.
    """
    try:
        if kind == "yacs":
            return _yacs_of(data, path)
        if kind == "lazy" and isinstance(data, Mapping):
            tree = _without(dict(data), _OF_TRAINING)
            content = _built(tree, f"{path}: config", trusted_packages)
            return _with_own_output(OmegaConf.create(content, flags={"allow_objects": True}))
    except (yaml.YAMLError, OmegaConfBaseException, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: its config cannot be read ({error})") from error
    raise ValueError(f"{path}: its config is of an unknown kind {kind!r}")


def _resolve_what_is_left_out(cfg: DictConfig) -> None:
    """Replaces references to the parts that :func:`config_of` leaves out, and other expressions
    than references, by their values."""
    kept = copy.deepcopy(cfg)
    for key in _OF_TRAINING:
        parent, _, name = key.rpartition(".")
        group = OmegaConf.select(kept, parent) if parent else kept
        if group is not None and name in group:
            del group[name]

    def visit(node: Any, whole: Any) -> None:
        keys = list(node) if isinstance(node, DictConfig) else range(len(node))
        for key in keys:
            child = node._get_node(key)
            if OmegaConf.is_interpolation(node, key):
                try:
                    node[key]
                    fine = _INTERPOLATION.fullmatch(child._value())
                except OmegaConfBaseException:
                    fine = None
                if not fine:
                    whole[key] = copy.deepcopy(whole[key])
            elif isinstance(child, (DictConfig, ListConfig)) and not child._is_none():
                visit(child, whole._get_node(key))

    visit(kept, cfg)


def _as_data(value: Any, key: str) -> Any:
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, Mapping):
        ret = {
            str(name): _as_data(x, f"{key}.{name}".strip("."))
            for name, x in value.items()
            if name != "_target_"
        }
        if "_target_" in value:
            target = value["_target_"]
            try:
                ret["_target_"] = dotted_name(locate(target) if isinstance(target, str) else target)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        return ret
    if isinstance(value, (list, tuple)):
        return [_as_data(x, f"{key}[{index}]") for index, x in enumerate(value)]
    if callable(value):
        try:
            return {_CALLABLE: dotted_name(value)}
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    raise ValueError(f"{key} is a {type(value).__name__}; expected text, numbers or LazyCalls")


def _built(value: Any, where: str, trusted: Sequence[str]) -> Any:
    """Data with callables for their names."""
    if isinstance(value, Mapping):
        if list(value) == [_CALLABLE]:
            return trusted_callable(value[_CALLABLE], where, trusted)
        ret = {}
        for name, x in value.items():
            if name == "_target_":
                found = trusted_callable(x, where, trusted)
                ret[name] = x if is_dataclass(found) else found  # OmegaConf would make a node of it
            elif name == "cfg" and "_target_" in value:
                # Detectron2's @configurable would take a whole config from it, with its own names.
                raise ValueError(f"{where}.cfg is an argument; expected arguments by their names")
            else:
                if name == "draw_training" and isinstance(x, str):  # GFL takes a name too
                    trusted_callable(x, f"{where}.{name}", trusted)
                ret[name] = _built(x, f"{where}.{name}", trusted)
        return ret
    if isinstance(value, (list, tuple)):
        return [_built(x, f"{where}[{index}]", trusted) for index, x in enumerate(value)]
    if isinstance(value, str) and "${" in value and not _INTERPOLATION.fullmatch(value):
        raise ValueError(f"{where} is {value!r}; expected no expression but ${{another.key}}")
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ValueError(f"{where} is a {type(value).__name__}; expected text and numbers")


def _without(tree: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A copy of a tree without some keys."""
    tree = dict(tree)
    for key in keys:
        first, _, rest = key.partition(".")
        if not rest:
            tree.pop(first, None)
        elif isinstance(tree.get(first), Mapping):
            tree[first] = _without(tree[first], [rest])
    return tree


def _yacs_of(text: Any, path: str) -> CfgNode:
    """yacs' text, merged into this version's defaults."""
    data = yaml.safe_load(text) if isinstance(text, str) else None
    if not isinstance(data, dict) or "_BASE_" in data:
        raise ValueError(f"{path}: its config is no yacs config")
    cfg = get_cfg()
    add_gfocal_config(cfg)
    unknown = _drop_unknown(data, cfg)
    if unknown:
        logging.getLogger(__name__).warning(
            f"{path}: keys of its config that gfocal and Detectron2 {detectron2.__version__} do "
            f"not have here are left out: {', '.join(unknown)}"
        )
    try:
        cfg.merge_from_other_cfg(CfgNode(data))
    except (KeyError, ValueError, AssertionError) as error:
        raise ValueError(f"{path}: its config does not fit ({error})") from error
    if cfg.MODEL.LOAD_PROPOSALS:  # Detectron2 would unpickle them
        raise ValueError(f"{path}: its config has MODEL.LOAD_PROPOSALS, which could run code")
    cfg.OUTPUT_DIR = OUTPUT
    cfg.MODEL.DEVICE = resolve_device().type
    return cfg


def _with_own_output(cfg: DictConfig) -> DictConfig:
    """Where results go, and on which device they are computed, is not the file's choice."""
    if isinstance(cfg.get("train"), DictConfig):
        cfg.train.output_dir = OUTPUT
        cfg.train.device = None
    if OmegaConf.select(cfg, "dataloader.evaluator.output_dir") is not None:
        cfg.dataloader.evaluator.output_dir = "${train.output_dir}/inference"
    return cfg


def _drop_unknown(data: dict[str, Any], cfg: CfgNode, prefix: str = "") -> list[str]:
    dropped = []
    for name in list(data):
        if name not in cfg:
            del data[name]
            dropped.append(f"{prefix}{name}")
        elif isinstance(cfg[name], CfgNode) and isinstance(data[name], dict):
            dropped += _drop_unknown(data[name], cfg[name], f"{prefix}{name}.")
    return dropped
