"""Runs of a table's rows, each a training in a process and a folder of its own.

A folder holds run.yaml (the config), output.txt (the output of the training) and the training's own
files.
"""

import contextlib
import dataclasses
import fcntl
import json
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from ...config import load_config, train_options
from ...modeling.recipes import tower_width
from .tables import METRICS

__all__ = ["save_config", "train"]


def save_config(cfg: DictConfig) -> None:
    """Writes run.yaml, or checks that the folder's run has this config. A config that an earlier
    version saved is the same one if its names lead to the same objects and its `train` has the same
    options, defaults included.

    Raises:
        ValueError: if it has another.
    """
    folder = Path(cfg.train.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "run.yaml"
    new = file.with_suffix(".new.yaml")
    LazyConfig.save(cfg, str(new))
    if file.exists() and file.read_text() != new.read_text() and not _is_same(file, new):
        raise ValueError(
            f"{folder} holds a run of another config, compare run.yaml with {new.name}; "
            "remove the folder or choose another --output"
        )
    new.replace(file)


def _is_same(file: Path, new: Path) -> bool:
    """Whether two saved configs make the same training."""
    try:
        return _meaning(file) == _meaning(new)
    except (ValueError, yaml.YAMLError):  # not a config, or of names that are gone
        return False


def _meaning(file: Path) -> dict[str, Any]:
    """A saved config with its values, its targets as objects, and all options of its `train`."""
    cfg = load_config(file)
    ret = _located(OmegaConf.to_container(cfg, resolve=True))
    return {**ret, "train": {**ret["train"], **dataclasses.asdict(train_options(cfg))}}


def _located(x: Any) -> Any:
    if isinstance(x, list):
        return [_located(value) for value in x]
    if not isinstance(x, dict):
        return x
    ret = {key: _located(value) for key, value in x.items()}
    if isinstance(ret.get("_target_"), str):
        with contextlib.suppress(ImportError):
            ret["_target_"] = locate(ret["_target_"])
    if ret.get("_target_") is tower_width:  # a width; earlier versions saved an interpolation
        return tower_width(ret["conv_dims"])
    return ret


def train(
    cfg: DictConfig, command: Sequence[str], progress: Callable[[int], None]
) -> dict[str, float] | dict[str, str]:
    """Trains a row, from its last checkpoint on, unless it is already finished. If another process
    trains it, perhaps for another table, this waits for it.

    Args:
        cfg: of :func:`tables.make_config`, saved by :func:`save_config`.
        command: starts a training; takes --resume and --config-file.
        progress: gets the number of finished iterations now and then.

    Returns:
        METRICS of the last iteration, or {"error": the last line of output.txt}.
    """
    folder, max_iter = Path(cfg.train.output_dir), cfg.train.max_iter
    arguments = ["--resume", "--config-file", str(folder / "run.yaml")]
    with open(folder / "output.txt", "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)  # the training has it too, until it ends
        result = _measured(folder, max_iter)
        if result is not None:
            return result
        process = subprocess.Popen([*command, *arguments], stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(1)
                progress(min(_iterations(folder), max_iter))
        finally:
            process.terminate()
    result = _measured(folder, max_iter)
    if result is None:
        lines = (folder / "output.txt").read_text().strip().splitlines()
        return {"error": lines[-1] if lines else f"exit code {process.returncode}"}
    return result


def _measured(folder: Path, max_iter: int) -> dict[str, float] | None:
    """METRICS of a finished run's last iteration, from its metrics.json."""
    file = folder / "metrics.json"
    for line in reversed(file.read_text().splitlines() if file.exists() else []):
        try:
            values = json.loads(line)
        except json.JSONDecodeError:  # the line that a kill cut short
            continue
        if "bbox/AP" in values and values["iteration"] >= max_iter - 1:
            return {name: values[f"bbox/{name}"] for name in METRICS}
    return None


def _iterations(folder: Path) -> int:
    """The number of finished iterations of a run, from its metrics.json."""
    file = folder / "metrics.json"
    found = re.findall(r'"iteration": (\d+)', file.read_text()) if file.exists() else []
    return int(found[-1]) + 1 if found else 0
