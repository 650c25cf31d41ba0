"""Changing configs of both kinds, LazyConfig and yacs, from the command line.

Detectron2's ``LazyConfig.apply_overrides`` adds a misspelt key silently; here an unknown key is
refused and the nearest one suggested.
"""

import os
import re
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NoReturn

from detectron2.config import CfgNode
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .keys import Config, all_keys, arguments_of, one_line, parameters_of, unknown_key
from .options import expectation

__all__ = ["apply_overrides"]


def apply_overrides(cfg: Config, overrides: Sequence[str]) -> Config:
    """Changes a config in place.

    An override names a key that exists. In a LazyConfig it can also add two kinds of keys: an
    argument of a LazyCall's callable that the config leaves at its default
    (``model.head.norm=BN``), and any new key with hydra's sign for it (``+train.note=x``).

    If a LazyConfig has a string, the text after "=" is taken as it is, so that any path can be
    given. Exceptions are ``null``, a list, a dict, a leading ``~``, and one pair of quotes around
    the whole text, which is removed. Other values follow hydra's grammar.

    A value must be of the kind of the one that it replaces: true or false, a number, a list, or
    keys. Numbers are converted if that loses nothing (an integer to a float, 1e4 to 10000).
    Arguments of a LazyCall can do more. A fraction can replace an integer if the callable's
    annotation or default is a float. A list can replace a number, or a number a list, if there is
    no annotation.

    null and a LazyCall can replace anything, and anything can replace them. A new LazyCall, such as
    ``model.matcher={_target_:gfocal.modeling.matchers.FCOSMatcher}``, keeps no old arguments.

    Args:
        cfg: a LazyConfig or yacs config.
        overrides: ``key=value`` strings; for yacs also ``KEY VALUE`` pairs.

    Returns:
        the same cfg.

    Raises:
        ValueError: an unknown key, an override that cannot be read, or a value of another kind.
    """
    if flags := [text for text in overrides if text.startswith("--")]:
        raise ValueError(f"{flags[0]} is among the overrides; flags stand before them")
    if isinstance(cfg, CfgNode):
        return _override_yacs(cfg, overrides)
    for text in overrides:
        try:
            _override_lazy(cfg, text)
        except (KeyError, OmegaConfBaseException) as error:
            expected = expectation(text.lstrip("+").partition("=")[0])
            raise ValueError(f"override {text!r}: {one_line(error)}{expected}") from error
    return cfg


def _override_lazy(cfg: DictConfig, text: str) -> None:
    key, equals, value = text.partition("=")
    if equals and not key.startswith(("+", "~")):
        _check_key(cfg, key, text)
        current = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
        if isinstance(current, str) and not re.fullmatch(r"null|\[.*\]|\{.*\}", value):
            quoted = re.fullmatch(r"(['\"])(.*)\1", value)
            OmegaConf.update(cfg, key, quoted[2] if quoted else os.path.expanduser(value))
            return
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"override {text!r} cannot be read as key=value ({reason}); "
            "quote a value with special characters: 'key=\"value\"'"
        ) from None
    if override.is_delete() or override.is_sweep_override():
        raise ValueError(
            f"override {text!r}: deletions and sweeps are not supported; quote a value with "
            "commas: 'key=\"a,b\"'"
        )
    key = override.key_or_group
    if override.is_add():
        _check_groups(cfg, key, text)
    value = _fitting(cfg, key, override.value(), text)
    current = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
    if OmegaConf.is_config(current) and isinstance(value, dict) != isinstance(current, DictConfig):
        OmegaConf.update(cfg, key, None)  # keys and a list do not merge
    # A new LazyCall keeps no arguments of the one before.
    merge = not _is_lazy_call(value)
    OmegaConf.update(cfg, key, value, merge=merge, force_add=override.is_add())


def _fitting(cfg: DictConfig, key: str, value: Any, text: str) -> Any:
    """The value of an override, with its numbers converted to the type of the current value.

    Raises:
        ValueError: it is of another kind; see :func:`apply_overrides`.
    """
    current = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
    interpolation = isinstance(value, str) and "${" in value
    if value is None or current is None or interpolation:
        return value
    if _is_lazy_call(value) or _is_lazy_call(current):
        return value

    def refuse(expected: str) -> NoReturn:
        raise ValueError(f"override {text!r}: {key} is {current!r}; expected {expected}")

    if isinstance(current, DictConfig):
        if not isinstance(value, dict):
            refuse(f"keys: {key}.KEY=... or {key}={{KEY:...}}")
        if not text.startswith("+"):
            for name in value:
                _check_key(cfg, f"{key}.{name}", text)
        return {name: _fitting(cfg, f"{key}.{name}", x, text) for name, x in value.items()}

    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    argument = parameters_of(node).get(name) if isinstance(node, DictConfig) else None
    kind = _kind(current)
    allowed = {kind}
    if kind == "a string":
        allowed |= {"a list", None}
    elif argument is not None and argument.annotation is argument.empty:
        allowed |= {"a number", "a list"} if kind in ("a number", "a list") else set()
    elif argument is not None:
        accepted = str(argument.annotation)
        allowed |= {"a list"} if "Sequence" in accepted else set()
        allowed |= {None} if "Mapping" in accepted else set()
    if kind is not None and _kind(value) not in allowed:
        refuse(kind)
    value = _converted_number(value, current)
    if isinstance(value, float) and isinstance(current, int):
        of_argument = argument and f"{argument.annotation} {type(argument.default)}"
        if "float" not in (of_argument or ""):
            refuse("an integer")
    return value


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, (list, ListConfig)):
        return "a list"
    return "a string" if isinstance(value, str) else None


def _converted_number(value: Any, current: Any) -> Any:
    """A number in the type of the current value: a float, or an integer if the number is whole."""
    if not _kind(value) == _kind(current) == "a number":
        return value
    if isinstance(current, float):
        return float(value)
    return int(value) if float(value).is_integer() else value


def _is_lazy_call(value: Any) -> bool:
    return isinstance(value, (dict, DictConfig)) and "_target_" in value


def _override_yacs(cfg: CfgNode, overrides: Sequence[str]) -> CfgNode:
    pairs: list[str] = []
    tokens = iter(overrides)
    for token in tokens:
        key, equals, rest = token.partition("=")
        value = rest if equals else next(tokens, None)
        if value is None:
            raise ValueError(f"override {key!r} has no value: give 'KEY VALUE' or KEY=VALUE")
        if key not in all_keys(cfg):
            raise ValueError(unknown_key(key, "the command line", all_keys(cfg)))
        current = attrgetter(key)(cfg)
        pairs += [key, _converted_number(cfg._decode_cfg_value(value), current)]
    cfg.merge_from_list(pairs)
    return cfg


def _check_groups(cfg: DictConfig, key: str, text: str) -> None:
    """Raises ValueError if a new key would lie below a value."""
    parts = key.split(".")
    for depth in range(1, len(parts)):
        prefix = ".".join(parts[:depth])
        group = OmegaConf.select(cfg, prefix)
        if group is not None and not OmegaConf.is_config(group):
            raise ValueError(f"override {text!r}: {prefix} is the value {group!r} and has no keys")


def _check_key(cfg: DictConfig, key: str, text: str) -> None:
    """Raises ValueError if a key is neither in a LazyConfig nor an argument of a LazyCall."""
    node: Any = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        prefix, last = ".".join(parts[:depth]), depth == len(parts) - 1
        index: str | int = part
        if not OmegaConf.is_config(node):
            raise ValueError(f"override {text!r}: {prefix} is the value {node!r} and has no keys")
        if isinstance(node, ListConfig):
            if not (part.isdigit() and int(part) < len(node)):
                raise ValueError(f"override {text!r}: {prefix} is a list of {len(node)} elements")
            index = int(part)
        elif part not in list(node):
            arguments = arguments_of(node)
            if last and (part in arguments or "**" in arguments):
                return
            new = [f"{prefix}.{name}".lstrip(".") for name in arguments if name != "**"]
            hint = f" (+{text} adds a new key)"
            raise ValueError(unknown_key(key, f"override {text!r}", all_keys(cfg) + new) + hint)
        if not last:  # what is replaced need not be readable
            node = None if OmegaConf.is_missing(node, index) else node[index]
