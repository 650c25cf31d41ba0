"""A CornerNet small enough for a test."""

import torch

from gfocal.backbones import Hourglass
from gfocal.detectors.cornernet import CornerNet
from gfocal.modeling.corner_head import CornerHead
from gfocal.modeling.corner_losses import CornerCriterion


def make_cornernet(num_classes=3, num_stacks=2, **kwargs):
    """Hourglasses with two halvings: images are filled up to multiples of 16. Its embeddings are
    close enough for many pairs, and its weights and scores are not all alike."""
    head = CornerHead(
        in_channels=8,
        num_classes=num_classes,
        num_stacks=num_stacks,
        pool_channels=8,
        conv_dim=8,
    )
    for branch in (*head.top_left, *head.bottom_right):
        torch.nn.init.normal_(branch.heat[1].weight, std=0.3)
    defaults = {
        "backbone": Hourglass(
            channels=[8, 8, 12], blocks=[1, 1, 1], num_stacks=num_stacks, out_channels=8
        ),
        "head": head,
        "criterion": CornerCriterion(),
        "num_classes": num_classes,
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    return CornerNet(**{**defaults, **kwargs})
