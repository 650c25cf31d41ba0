"""Reading config files of both kinds, LazyConfig and yacs."""

import builtins
import os
import traceback
from collections.abc import Sequence
from types import FrameType

import yaml
from detectron2.config import CfgNode, LazyConfig, get_cfg
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from .keys import Config, all_keys, one_line, unknown_key
from .options import OPTIONS, expectation, is_declared
from .overrides import apply_overrides
from .settings import resolve_device
from .yacs import add_gfocal_config

__all__ = ["load_config"]


def load_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> Config:
    """Loads a config file and applies command-line overrides.

    Args:
        path: a ``.py`` LazyConfig, a LazyConfig saved as ``.yaml``, or a yacs ``.yaml``, which is
            merged into Detectron2's defaults plus :func:`gfocal.config.add_gfocal_config`.
            MODEL.DEVICE is then cuda if there is one, else cpu, unless the file sets it.
        overrides: ``key=value`` strings; for yacs also Detectron2's ``KEY VALUE`` pairs.

    Returns:
        a DictConfig for a LazyConfig, a CfgNode for yacs.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a config file, a file that fails (the message names the line), an unknown
            key, or a value of another kind than before.
    """
    path = str(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no config file {path!r} (working directory: {os.getcwd()})")
    extension = os.path.splitext(path)[1]
    if extension not in (".py", ".yaml", ".yml"):
        raise ValueError(f"config file {path!r} must end in .py, .yaml or .yml")
    cfg = _load_py(path) if extension == ".py" else _load_yaml(path)
    return apply_overrides(cfg, overrides)


def _load_py(path: str) -> DictConfig:
    original_import = builtins.__import__
    try:
        return LazyConfig.load(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # whatever the code of a config raises
        says_enough = isinstance(error, (ValueError, OSError, SyntaxError))
        if says_enough and not isinstance(error, OmegaConfBaseException):
            raise
        frames = list(traceback.walk_tb(error.__traceback__))
        while frames and _is_library(frames[-1][0]):  # the line that called it says more
            frames.pop()
        if not (frames and _is_config_file(frames[-1][0])):
            raise  # of code that the file calls
        frame, line = frames[-1]
        raise ValueError(f"{frame.f_code.co_filename}:{line}: {_reason(error)}") from error
    finally:
        # LazyConfig.load replaces it while it loads, and does not restore it after an error.
        builtins.__import__ = original_import


def _reason(error: Exception) -> str:
    """The message of an error in a config's code, on one line."""
    text = f"{type(error).__name__}: {one_line(error)}"
    if not (isinstance(error, OmegaConfBaseException) and is_declared(error.object_type)):
        return text
    key = f"train.{str(error.full_key).removeprefix('train.')}"
    if isinstance(error, (ConfigAttributeError, ConfigKeyError)):
        keys = [f"train.{option.key}" for option in OPTIONS]
        return f"{unknown_key(key, 'the config', keys)} (a key of your own: open_dict)"
    return f"{key}: {text}{expectation(key)}"


def _is_config_file(frame: FrameType) -> bool:
    package = frame.f_globals.get("__package__") or ""
    return package.startswith("detectron2._cfg_loader")


def _is_library(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__", "").partition(".")[0]
    return module in (
        "antlr4",
        "collections",
        "detectron2",
        "importlib",
        "omegaconf",
    ) and not _is_config_file(frame)


def _load_yaml(path: str) -> Config:
    """Loads a yacs config (its top-level keys are upper case) or a saved LazyConfig."""
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
