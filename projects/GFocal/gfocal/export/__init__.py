"""Detectors made ready for a runtime, and the runtime that needs neither PyTorch nor Detectron2."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names, names_of

if TYPE_CHECKING:  # what the table below says
    from .card import ModelCard as ModelCard
    from .optimize import Optimizable as Optimizable
    from .optimize import fast_dtype as fast_dtype
    from .optimize import optimize_for_inference as optimize_for_inference

_LAZY = names_of(
    {
        ".card": "ModelCard",
        ".optimize": "Optimizable fast_dtype optimize_for_inference",
    }
)
__all__ = list(_LAZY)
__getattr__, __dir__ = lazy_names(__name__, _LAZY)
