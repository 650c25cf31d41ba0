"""Pages and pictures to look at."""

from .pictures import (
    detect_with_distributions,
    draw_box_distributions,
    draw_detections,
    draw_grid,
    draw_training_image,
)

__all__ = [
    "detect_with_distributions",
    "draw_box_distributions",
    "draw_detections",
    "draw_grid",
    "draw_training_image",
]
