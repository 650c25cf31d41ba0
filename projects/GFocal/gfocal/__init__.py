"""Generalized Focal Loss v1 and v2 for Detectron2."""

import importlib
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
# Names that are imported when they are first used, and their modules.
_LAZY = {"model_zoo": "gfocal.config.model_zoo", "optimize_for_inference": "gfocal.export"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if name == "model_zoo" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
