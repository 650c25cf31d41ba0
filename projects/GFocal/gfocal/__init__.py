"""Generalized Focal Loss v1 and v2 for Detectron2."""

try:
    import detectron2  # noqa: F401
except ImportError as error:
    raise ImportError(
        "gfocal extends Detectron2, which is not installed: install the official build, or run "
        "tools/install_detectron2.py for a pure-Python one"
    ) from error

from .config import model_zoo
from .export import optimize_for_inference

__all__ = ["model_zoo", "optimize_for_inference"]
