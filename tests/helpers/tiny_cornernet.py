"""A CornerNet small enough for a test."""

from torch import nn

from gfocal.backbones import Hourglass
from gfocal.detectors.cornernet import CornerNet
from gfocal.modeling.corner_head import CornerHead
from gfocal.modeling.corner_losses import CornerCriterion


def make_cornernet(num_classes=3, num_stacks=2, **kwargs):
    """Hourglasses with two halvings, so that images are filled up to multiples of 16. Group norm
    can train on the one cell that is left of such an image. All embeddings are near each other at
    first; the short distance leaves some pairs. Gradients are below 1, for float16."""

    def norm(channels):
        return nn.GroupNorm(2, channels)

    head = CornerHead(
        in_channels=8,
        num_classes=num_classes,
        num_stacks=num_stacks,
        pool_channels=8,
        conv_dim=8,
        norm=norm,
        prior_prob=0.02,
    )
    for branch in (*head.top_left, *head.bottom_right):
        nn.init.normal_(branch.heat[1].weight, std=0.05)
        nn.init.zeros_(branch.embedding[1].bias)
        nn.init.normal_(branch.embedding[1].weight, std=0.03)
    backbone = Hourglass(
        channels=[8, 8, 12], blocks=[1, 1, 1], num_stacks=num_stacks, out_channels=8, norm=norm
    )
    backbone.stem[0].weight.data *= 4
    defaults = {
        "backbone": backbone,
        "head": head,
        "criterion": CornerCriterion(),
        "max_distance": 0.02,
        "num_classes": num_classes,
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    # Hard NMS, whose detections have the scores of the candidates.
    if not {"suppression", "postprocess"} & kwargs.keys():
        defaults["test_nms_thresh"] = 0.6
    return CornerNet(**{**defaults, **kwargs})
