"""Reading configs of both kinds, LazyConfig and yacs, and changing them from the command line.

Detectron2's ``LazyConfig.apply_overrides`` adds a misspelt key silently; here an unknown key is
refused and the nearest one suggested.
"""

import builtins
import difflib
import inspect
import os
import re
import traceback
from collections.abc import Mapping, Sequence
from operator import attrgetter
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import torch
import yaml
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.utils.registry import locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..config import add_gfocal_config

Config = DictConfig | CfgNode


class ConfigSettings(NamedTuple):
    """What both kinds of config say about a run, under one name.

    Attributes:
        output_dir: `train.output_dir` or `OUTPUT_DIR`.
        weights: `train.init_checkpoint` or `MODEL.WEIGHTS`; empty for none.
        device: `train.device` or `MODEL.DEVICE`; None where the config does not say.
    """

    output_dir: str
    weights: str
    device: str | None


def config_settings(cfg: Config) -> ConfigSettings:
    """Returns the output folder, the weights and the device that a config names."""
    if isinstance(cfg, CfgNode):
        return ConfigSettings(cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE)
    return ConfigSettings(
        OmegaConf.select(cfg, "train.output_dir", default="./output"),
        OmegaConf.select(cfg, "train.init_checkpoint", default="") or "",
        OmegaConf.select(cfg, "train.device", default=None),
    )


def set_device(cfg: Config, device: str) -> None:
    """Sets the device that a config names."""
    if isinstance(cfg, CfgNode):
        cfg.MODEL.DEVICE = device
    else:
        OmegaConf.update(cfg, "train.device", device)


def resolve_device(name: str | None = None) -> torch.device:
    """Returns the device of that name; without one, cuda where there is one, else cpu.

    Raises:
        ValueError: no such device, or cuda on a machine without it.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(
            f"the config asks for device {name!r}; expected cpu, cuda, cuda:0 or another that "
            "PyTorch knows"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"the config asks for device {name!r}, but PyTorch sees no CUDA device here; "
            "set train.device=cpu (LazyConfig) or MODEL.DEVICE=cpu (yacs)"
        )
    return device


def load_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> Config:
    """Loads a config file and applies command-line overrides.

    Args:
        path: a ``.py`` LazyConfig, a LazyConfig saved as ``.yaml``, or a yacs ``.yaml``, which is
            merged into Detectron2's defaults plus :func:`gfocal.config.add_gfocal_config`.
            MODEL.DEVICE is then cuda where there is one, else cpu, unless the file says otherwise.
        overrides: ``key=value`` strings; for yacs also Detectron2's ``KEY VALUE`` pairs.

    Returns:
        a DictConfig for a LazyConfig, a CfgNode for yacs.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a config file, one that fails (names the line), an unknown key, or a value
            of another kind than before.
    """
    path = str(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no config file {path!r} (working directory: {os.getcwd()})")
    extension = os.path.splitext(path)[1]
    if extension not in (".py", ".yaml", ".yml"):
        raise ValueError(f"config file {path!r} must end in .py, .yaml or .yml")
    cfg = _load_py(path) if extension == ".py" else _load_yaml(path)
    return apply_overrides(cfg, overrides)


def apply_overrides(cfg: Config, overrides: Sequence[str]) -> Config:
    """Changes a config in place.

    An override names a key that exists. Two additions are possible in a LazyConfig: an argument
    that the callable of a LazyCall has but the config leaves at its default
    (``model.head.norm=BN``), and, by hydra's sign for it, any new key (``+train.note=x``).

    Where a LazyConfig has a string, what follows "=" is taken as it is, so that any path can be
    given; exceptions are ``null``, a list, a dict, a leading ``~``, and one pair of quotes around
    the whole, which is removed. Other values follow hydra's grammar.

    A value must be of the kind of the one that it replaces: true or false, a number, a list, or
    keys. Numbers are converted where that loses nothing (an integer to a float, 1e4 to 10000). Only
    as an argument of a LazyCall can a fraction replace an integer, where the callable's annotation
    or default is a float, and a list a number or a number a list, where there is no annotation.
    null and a LazyCall can replace anything and be replaced by anything; the new LazyCall of
    ``model.matcher={_target_:gfocal.matcher.FCOSMatcher}`` takes no arguments over.

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
            raise ValueError(f"override {text!r}: {error}") from error
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
    value = _fitting(cfg, key, override.value(), text)
    current = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
    if OmegaConf.is_config(current) and isinstance(value, dict) != isinstance(current, DictConfig):
        OmegaConf.update(cfg, key, None)  # keys and a list do not merge
    LazyConfig.apply_overrides(cfg, [text])
    # Again, as what that sets is not converted, and keeps the arguments of a replaced LazyCall.
    OmegaConf.update(cfg, key, value, merge=not _is_lazy_call(value))


def _fitting(cfg: DictConfig, key: str, value: Any, text: str) -> Any:
    """The value of an override, its numbers converted to what stands there now.

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
    argument = _parameters(node).get(name) if isinstance(node, DictConfig) else None
    kind = _kind(current)
    allowed = {kind}
    if kind == "a string":
        allowed |= {"a list", None}
    elif argument is not None and argument.annotation is argument.empty:
        allowed |= {"a number", "a list"} if kind in ("a number", "a list") else set()
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
    """A number as the float or, if it is whole, the integer that stands there now."""
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
        key, equals, value = token.partition("=")
        if not equals:
            value = next(tokens, None)
            if value is None:
                raise ValueError(f"override {key!r} has no value: give 'KEY VALUE' or KEY=VALUE")
        if key not in all_keys(cfg):
            raise ValueError(unknown_key(key, "the command line", all_keys(cfg)))
        current = attrgetter(key)(cfg)
        pairs += [key, _converted_number(cfg._decode_cfg_value(value), current)]
    cfg.merge_from_list(pairs)
    return cfg


def _load_py(path: str) -> DictConfig:
    original_import = builtins.__import__
    try:
        return LazyConfig.load(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    except (ValueError, OSError, SyntaxError):
        raise
    except Exception as error:  # whatever the code of a config raises
        frames = list(traceback.walk_tb(error.__traceback__))
        while frames and _is_library(frames[-1][0]):  # the line that called it says more
            frames.pop()
        if not (frames and _is_config_file(frames[-1][0])):
            raise  # of code that the file calls
        frame, line = frames[-1]
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{frame.f_code.co_filename}:{line}: {reason}") from error
    finally:
        # LazyConfig.load replaces it while it loads, and does not restore it after an error.
        builtins.__import__ = original_import


def _is_config_file(frame: FrameType) -> bool:
    package = frame.f_globals.get("__package__") or ""
    return package.startswith("detectron2._cfg_loader")


def _is_library(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__", "").partition(".")[0]
    return module in ("detectron2", "importlib", "omegaconf") and not _is_config_file(frame)


def _load_yaml(path: str) -> Config:
    """Loads a yacs config, whose top-level keys are upper case, or a saved LazyConfig."""
    try:
        with open(path, "rb") as f:
            root = yaml.compose(f, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as error:  # no yaml, no text
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if not (isinstance(root, yaml.MappingNode) and root.value):
        raise ValueError(f"{path}: expected keys, such as MODEL, with values")
    if not all(str(key.value).isupper() for key, _ in root.value):
        return LazyConfig.load(path)
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.DEVICE = resolve_device().type
    try:
        _refuse_groups_without_keys(root, cfg)
        cfg.merge_from_file(path)
    except KeyError as error:  # yacs' way to say "no such key"
        key = str(error.args[0]).rsplit(" ", 1)[-1]
        raise ValueError(unknown_key(key, path, all_keys(cfg))) from error
    except (yaml.YAMLError, ValueError) as error:  # of a _BASE_; a value of another type
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    return cfg


def _refuse_groups_without_keys(node: yaml.MappingNode, cfg: CfgNode, prefix: str = "") -> None:
    for key, value in node.value:
        group = cfg.get(key.value)
        if not isinstance(group, CfgNode):
            continue
        name = f"{prefix}{key.value}"
        if value.id != "mapping":
            raise ValueError(
                f"{name} has no keys; expected some, such as {name}.{next(iter(group))}"
            )
        _refuse_groups_without_keys(value, group, f"{name}.")


def _check_key(cfg: DictConfig, key: str, text: str) -> None:
    """Raises ValueError where a key is neither in a LazyConfig nor an argument of a LazyCall."""
    node: Any = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        prefix, last = ".".join(parts[:depth]), depth == len(parts) - 1
        if not OmegaConf.is_config(node):
            raise ValueError(f"override {text!r}: {prefix} is the value {node!r} and has no keys")
        if isinstance(node, ListConfig):
            if not (part.isdigit() and int(part) < len(node)):
                raise ValueError(f"override {text!r}: {prefix} is a list of {len(node)} elements")
            part = int(part)
        elif part not in list(node):
            arguments = arguments_of(node)
            if last and (part in arguments or "**" in arguments):
                return
            new = [f"{prefix}.{name}".lstrip(".") for name in arguments if name != "**"]
            hint = f" (+{text} adds a new key)"
            raise ValueError(unknown_key(key, f"override {text!r}", all_keys(cfg) + new) + hint)
        if not last:  # what is replaced need not be readable
            node = None if OmegaConf.is_missing(node, part) else node[part]


def arguments_of(node: DictConfig) -> list[str]:
    """Names of the arguments of a LazyCall's callable; "**" where it takes any name."""
    parameters = _parameters(node).values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return names + ["**"] * any(p.kind == p.VAR_KEYWORD for p in parameters)


def _parameters(node: DictConfig) -> Mapping[str, inspect.Parameter]:
    """What the callable of a LazyCall takes; nothing where the node is none."""
    target = node.get("_target_")
    if isinstance(target, str):
        target = locate(target)
    if target is None:
        return {}
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return {"": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}


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


def unknown_key(key: str, where: str, valid: Sequence[str]) -> str:
    """The message for an unknown key, with the nearest valid ones, in whatever case it is."""
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
