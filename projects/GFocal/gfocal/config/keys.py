"""The keys of configs: all keys, the keys that a LazyCall can take, the nearest to a wrong one."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

__all__ = ["Config", "all_keys", "arguments_of", "one_line", "parameters_of", "unknown_key"]

Config = DictConfig | CfgNode


def all_keys(cfg: Any, prefix: str = "") -> list[str]:
    """Every dotted key of a config, groups included."""
    if isinstance(cfg, DictConfig):
        cfg = OmegaConf.to_container(cfg, resolve=False)
    keys = []
    if isinstance(cfg, dict):
        for name, value in cfg.items():
            if name != "_target_":
                keys += [f"{prefix}{name}", *all_keys(value, f"{prefix}{name}.")]
    return keys


def arguments_of(node: DictConfig) -> list[str]:
    """Names of the arguments of a LazyCall's callable; "**" if it takes any name."""
    parameters = parameters_of(node).values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return names + ["**"] * any(p.kind == p.VAR_KEYWORD for p in parameters)


def parameters_of(node: DictConfig) -> Mapping[str, inspect.Parameter]:
    """The parameters of a LazyCall's callable by name; {} if the node is not a LazyCall."""
    target = node.get("_target_", None)
    if isinstance(target, str):
        target = locate(target)
    if target is None:
        return {}
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return {"": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}


def one_line(error: Exception) -> str:
    """The message of an error, without the lines that OmegaConf adds for its developers."""
    lines = [line.strip() for line in str(error).splitlines()]
    internal = ("full_key:", "object_type=", "reference_type=")
    return " ".join(line for line in lines if line and not line.startswith(internal))


def unknown_key(key: str, where: str, valid: Sequence[str]) -> str:
    """The message for an unknown key, with the nearest valid ones; upper and lower case count as
    equal."""
    lowered = {name.lower(): name for name in valid}
    close = difflib.get_close_matches(key.lower(), lowered, n=3, cutoff=0.75)
    last = key.lower().rsplit(".", 1)[-1]
    close += [name for name in lowered if name.rsplit(".", 1)[-1] == last]
    nearest = [lowered[name] for name in close]
    if not nearest:
        parent = key.rpartition(".")[0]
        nearest = [name for name in valid if name.rpartition(".")[0] == parent]
    suggestion = ", ".join(dict.fromkeys(nearest[:8]))
    return f"unknown key {key!r} in {where}" + (f"; did you mean {suggestion}?" * bool(suggestion))
