"""The package's parts, called as :mod:`gfocal.benchmarks.straightforward` is."""

import torch

from gfocal.modeling.corners import pair_corners
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.heatmaps import paint_gaussians as painted_heatmaps
from gfocal.modeling.matchers import ATSSMatcher, MaxIoUMatcher, TaskAlignedMatcher
from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.prior_losses import PriorLossInputs, SoftmaxHardNegativeLoss
from gfocal.modeling.structures import GroundTruth
from gfocal.modeling.terms import DistributionFocalLoss, GIoULoss, QualityFocalLoss

__all__ = [
    "atss",
    "detections",
    "losses",
    "painted_heatmaps",
    "pair_corners",
    "ssd_labels",
    "ssd_loss",
    "task_aligned",
]

_matcher = ATSSMatcher()
losses = GFLCriterion(
    cls_loss=QualityFocalLoss(), box_loss=GIoULoss(), dist_loss=DistributionFocalLoss()
)


def atss(anchors, gt_boxes, image_sizes=None):
    """N ``Boxes`` -> (N, R) index of the box, -1 background, -2 beyond the image."""
    return _matcher(anchors, GroundTruth(gt_boxes, (), image_sizes)).idxs


def task_aligned(anchors, predictions, truth):
    """``Matches`` of TOOD."""
    return TaskAlignedMatcher()(anchors, truth, predictions)


def detections(anchors, predictions, image_sizes, **settings):
    """``Instances`` of each image."""
    return NMSPostProcess(**settings)(anchors, predictions, image_sizes)


def ssd_labels(priors, truth):
    """(N, R) classes, K (of 80) for background."""
    idxs = MaxIoUMatcher()(priors, truth).idxs
    images, locations = (idxs >= 0).nonzero(as_tuple=True)
    counts = torch.tensor(truth.counts, device=idxs.device)
    rows = idxs[images, locations] + (counts.cumsum(0) - counts)[images]
    labels = torch.full_like(idxs, 80)
    labels[images, locations] = torch.cat([*truth.classes])[rows]
    return labels


def ssd_loss(logits, labels):
    """The loss of the classes, with three hard negatives a positive."""
    positives = labels < logits.shape[2] - 1
    fg_idxs = positives.nonzero(as_tuple=True)
    num_positives = positives.sum(dim=1)
    inputs = PriorLossInputs(
        cls_logits=logits,
        negatives=~positives,
        fg_idxs=fg_idxs,
        fg_labels=labels[fg_idxs],
        fg_ious=logits.new_zeros(len(fg_idxs[0])),
        num_positives=num_positives,
        divisor=num_positives.clamp(min=1).sum(),
    )
    return SoftmaxHardNegativeLoss()(inputs)
