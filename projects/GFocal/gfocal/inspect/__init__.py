"""Pages and pictures to look at."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names, names_of

if TYPE_CHECKING:  # what the table below says
    from .distributions import detect_with_distributions as detect_with_distributions
    from .pictures import draw_box_distributions as draw_box_distributions
    from .pictures import draw_detections as draw_detections
    from .pictures import draw_grid as draw_grid
    from .pictures import draw_training_image as draw_training_image

# The page needs none of them: `gfocal predict --html` of an ONNX file has no PyTorch.
_LAZY = names_of(
    {
        ".distributions": "detect_with_distributions",
        ".pictures": "draw_box_distributions draw_detections draw_grid draw_training_image",
    }
)
__all__ = list(_LAZY)
__getattr__, __dir__ = lazy_names(__name__, _LAZY)
