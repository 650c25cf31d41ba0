"""Detectors made ready for a runtime, and the runtime that needs neither PyTorch nor Detectron2."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names, names_of

if TYPE_CHECKING:  # what the table below says
    from .card import ModelCard as ModelCard
    from .detections import Detections as Detections
    from .exporting import ParityError as ParityError
    from .exporting import export_model as export_model
    from .for_supervision import to_supervision as to_supervision
    from .optimize import Optimizable as Optimizable
    from .optimize import fast_dtype as fast_dtype
    from .optimize import optimize_for_inference as optimize_for_inference
    from .runtime import OnnxPredictor as OnnxPredictor

_LAZY = names_of(
    {
        ".card": "ModelCard",
        ".detections": "Detections",
        ".exporting": "ParityError export_model",
        ".for_supervision": "to_supervision",
        ".optimize": "Optimizable fast_dtype optimize_for_inference",
        ".runtime": "OnnxPredictor",
    }
)
__all__ = list(_LAZY)
__getattr__, __dir__ = lazy_names(__name__, _LAZY)
