"""Detectors made ready for a runtime."""

from .optimize import Optimizable, fast_dtype, optimize_for_inference

__all__ = ["Optimizable", "fast_dtype", "optimize_for_inference"]
