"""Which locations are positive for which box. A file a matcher.

A matcher is called as ``matcher(anchors, truth, predictions)``, with ``DenseAnchors``,
``GroundTruth`` and the head's ``DensePredictions``, detached. It answers ``Matches``: for every
location of every image the index of its box among that image's boxes, ``BACKGROUND`` (-1), or
``IGNORED`` (-2). A matcher must ignore locations beyond ``truth.image_sizes``;
:func:`nothing_matched` gives it such a start. It may also answer a quality: a soft label for each
positive location. The measure :func:`gfocal.modeling.quality.matched_quality` reads it.
"""

from ..structures import BACKGROUND, IGNORED
from .atss import ATSSMatcher, adaptive_thresholds
from .common import check_matches, ignore_background_inside, nothing_matched
from .dynamic_atss import DynamicATSSMatcher
from .fcos import FCOSMatcher
from .fovea import FoveaMatcher
from .max_iou import MaxIoUMatcher
from .simota import SimOTAMatcher
from .task_aligned import TaskAlignedMatcher

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "ATSSMatcher",
    "DynamicATSSMatcher",
    "FCOSMatcher",
    "FoveaMatcher",
    "MaxIoUMatcher",
    "SimOTAMatcher",
    "TaskAlignedMatcher",
    "adaptive_thresholds",
    "check_matches",
    "ignore_background_inside",
    "nothing_matched",
]
