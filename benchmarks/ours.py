"""The package's parts, called as :mod:`gfocal.benchmarks.straightforward` is."""

from gfocal.criterion import DistributionFocalLoss, GFLCriterion, GIoULoss, QualityFocalLoss
from gfocal.matcher import ATSSMatcher
from gfocal.postprocess import detections

__all__ = ["atss", "detections", "losses"]

atss = ATSSMatcher()
losses = GFLCriterion(
    cls_loss=QualityFocalLoss(), box_loss=GIoULoss(), dist_loss=DistributionFocalLoss()
)
