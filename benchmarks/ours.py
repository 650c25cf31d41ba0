"""The package's parts, called as :mod:`gfocal.benchmarks.straightforward` is."""

from gfocal.criterion import GFLCriterion
from gfocal.matchers import ATSSMatcher
from gfocal.postprocess import NMSPostProcess
from gfocal.structures import GroundTruth
from gfocal.terms import DistributionFocalLoss, GIoULoss, QualityFocalLoss

__all__ = ["atss", "detections", "losses"]

_matcher = ATSSMatcher()
losses = GFLCriterion(
    cls_loss=QualityFocalLoss(), box_loss=GIoULoss(), dist_loss=DistributionFocalLoss()
)


def atss(anchors, gt_boxes, image_sizes=None):
    """N ``Boxes`` -> (N, R) index of the box, -1 background, -2 beyond the image."""
    return _matcher(anchors, GroundTruth(gt_boxes, (), image_sizes)).idxs


def detections(anchors, predictions, image_sizes, **settings):
    """``Instances`` of each image."""
    return NMSPostProcess(**settings)(anchors, predictions, image_sizes)
