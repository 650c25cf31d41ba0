"""Pages and pictures to look at."""

from .distributions import detect_with_distributions
from .pictures import draw_box_distributions, draw_detections, draw_grid, draw_training_image

__all__ = [
    "detect_with_distributions",
    "draw_box_distributions",
    "draw_detections",
    "draw_grid",
    "draw_training_image",
]
