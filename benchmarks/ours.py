"""The package's parts, called as :mod:`gfocal.benchmarks.straightforward` is."""

from gfocal.modeling.corners import pair_corners
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.heatmaps import paint_gaussians as painted_heatmaps
from gfocal.modeling.matchers import ATSSMatcher
from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.structures import GroundTruth
from gfocal.modeling.terms import DistributionFocalLoss, GIoULoss, QualityFocalLoss

__all__ = ["atss", "detections", "losses", "painted_heatmaps", "pair_corners"]

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
