"""The published configs by name, wherever the package is installed."""

import difflib
import os
from pathlib import Path

from detectron2.config import CfgNode
from omegaconf import DictConfig

from .files import load_config
from .published import PUBLISHED

__all__ = ["find_config", "get_config", "get_config_file", "list_all_configs", "list_configs"]


def list_configs() -> list[str]:
    """Returns the names of the published models' configs, as :func:`get_config` takes them."""
    return [name for name in list_all_configs() if Path(name).stem in PUBLISHED]


def list_all_configs() -> list[str]:
    """Returns the names of all configs that can be trained, as :func:`get_config` takes them."""
    names = _names(_root())
    return sorted(name for name in names if "/" in name and not name.startswith("common/"))


def get_config_file(name: str) -> str:
    """Returns the path of a config.

    Args:
        name: relative to configs/, e.g. "COCO-Detection/gflv2_R_50_FPN_1x.py"; the yacs twins end
            in .yaml. The configs of configs/quick_start are found too.

    Raises:
        ValueError: no such config; names the nearest.
    """
    root = _root()
    names = _names(root)
    if name not in names:
        nearest = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "gfocal zoo --all lists them"
        raise ValueError(f"no config {name!r} in {root}; {hint}")
    return str(root / name)


def get_config(name: str) -> DictConfig | CfgNode:
    """Returns a config: a DictConfig for a .py, a yacs CfgNode for a .yaml.

    Args:
        name: see :func:`get_config_file`.
    """
    return load_config(get_config_file(name))


def find_config(name: str) -> str:
    """Returns the path of a config: the file of that name, or else the package's.

    Args:
        name: a path, or a name as of :func:`get_config_file`; "configs/" may stand before it.

    Raises:
        FileNotFoundError: neither; names the nearest of the package.
    """
    if os.path.isfile(name):
        return name
    try:
        return get_config_file(name.removeprefix("configs/"))
    except ValueError as error:
        raise FileNotFoundError(
            f"no config file {name!r} (working directory: {os.getcwd()}), and {error}"
        ) from None


def _names(root: Path) -> set[str]:
    return {
        file.relative_to(root).as_posix()
        for file in root.rglob("*")
        if file.suffix in (".py", ".yaml") and file.name != "__init__.py"
    }


def _root() -> Path:
    """configs/: inside the installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    for root in (package / "configs", package.parents[2] / "configs"):
        if (root / "COCO-Detection").is_dir():
            return root
    raise FileNotFoundError(f"no configs folder in {package} or {package.parents[2]}")
