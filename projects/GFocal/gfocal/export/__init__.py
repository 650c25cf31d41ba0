"""Detectors made ready for a runtime."""

from .optimize import fast_dtype, optimize_for_inference

__all__ = ["fast_dtype", "optimize_for_inference"]
