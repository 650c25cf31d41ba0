"""Generalized Focal Loss v1 and v2 for Detectron2."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import detectron2  # noqa: F401
except ImportError as error:
    raise ImportError(
        "gfocal extends Detectron2, which is not installed: install the official build, or run "
        "tools/install_detectron2.py for a pure-Python one"
    ) from error

from . import _moved, backbones, detectors  # noqa: F401  (the last two register their names)

if TYPE_CHECKING:
    from .config import model_zoo
    from .export import optimize_for_inference

__all__ = ["model_zoo", "optimize_for_inference"]

_moved.install()
# gfocal.benchmarks is a folder of the installed package, or at the top of this file's checkout.
_top = Path(__path__[0], "../../..").resolve()
if (_top / "benchmarks" / "straightforward.py").is_file():
    __path__.append(str(_top))
# Names that are imported when they are first used, and their modules.
_LAZY = {"model_zoo": "gfocal.config.model_zoo", "optimize_for_inference": "gfocal.export"}
# Parts of the package that are imported when they are first used.
_WINGS = (
    "benchmarks",
    "cli",
    "config",
    "data",
    "engine",
    "export",
    "inspect",
    "modeling",
    "process",
    "solver",
    "weights",
)


def __getattr__(name: str) -> Any:
    if name in _WINGS or f"{__name__}.{name}" in _moved.MOVED:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if name == "model_zoo" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_WINGS})
