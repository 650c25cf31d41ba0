"""A FoveaBox small enough for a test."""

from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from gfocal.modeling.criterion import GFLCriterion, one_more_an_image
from gfocal.modeling.head import GFLHead
from gfocal.modeling.matchers import FoveaMatcher
from gfocal.modeling.quality import NoQuality, uniform
from gfocal.modeling.representations import LogDistance
from gfocal.modeling.terms import FocalLoss, LogSmoothL1Loss

from .tiny import make_gfl


def make_fovea(num_classes=3, **kwargs):
    """GFL with FoveaBox's parts on the tiny backbone of strides 8 and 16."""
    defaults = {
        "head": GFLHead(
            in_channels=8,
            num_levels=2,
            num_classes=num_classes,
            conv_dims=[8],
            norm="",
            level_scales=False,
            box_representation=LogDistance(),
            quality_predictor=NoQuality(),
        ),
        "anchor_generator": DefaultAnchorGenerator(
            sizes=[[64], [128]], aspect_ratios=[1.0], strides=[8, 16], offset=0.5
        ),
        "matcher": FoveaMatcher(),
        "criterion": GFLCriterion(
            cls_loss=FocalLoss(alpha=0.4, gamma=1.5),
            box_loss=LogSmoothL1Loss(),
            box_weight=uniform,
            cls_divisor=one_more_an_image,
        ),
        "ignore_padding": False,
        "test_nms_thresh": 0.5,
        "test_clip_margin": 1.0,
    }
    return make_gfl(num_classes, **{**defaults, **kwargs})
