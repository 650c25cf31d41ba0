"""How reliable a detector is: whether its scores and standard deviations mean what they say."""

from .evaluator import DetectionReliabilityEvaluator
from .picture import draw_reliability

__all__ = ["DetectionReliabilityEvaluator", "draw_reliability"]
