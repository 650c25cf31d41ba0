"""A GFL detector small enough for a test, and images to feed it."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, Instances
from torch import nn

from gfocal.detectors.gfl import GFL
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.head import GFLHead
from gfocal.modeling.matchers import ATSSMatcher
from gfocal.modeling.quality import DistributionGuidedQualityPredictor
from gfocal.modeling.representations import GeneralDistribution
from gfocal.modeling.structures import GroundTruth
from gfocal.modeling.terms import DistributionFocalLoss, GIoULoss, QualityFocalLoss


class TinyBackbone(Backbone):
    """Average pooling to strides 8 and 16, then a 1x1 convolution of each."""

    size_divisibility = 16

    def __init__(self, channels=8):
        super().__init__()
        self.channels = channels
        self.conv = nn.ModuleDict(
            {"p3": nn.Conv2d(3, channels, 1), "p4": nn.Conv2d(3, channels, 1)}
        )

    def forward(self, x):
        strides = {"p3": 8, "p4": 16}
        return {k: self.conv[k](nn.functional.avg_pool2d(x, s)) for k, s in strides.items()}

    def output_shape(self):
        return {
            "p3": ShapeSpec(channels=self.channels, stride=8),
            "p4": ShapeSpec(channels=self.channels, stride=16),
        }


def make_head(num_classes=3, quality_predictor=None, box_representation=None):
    return GFLHead(
        in_channels=8,
        num_levels=2,
        num_classes=num_classes,
        conv_dims=[8],
        norm="",
        box_representation=box_representation or GeneralDistribution(),
        quality_predictor=quality_predictor or DistributionGuidedQualityPredictor(),
    )


def make_gfl(num_classes=3, quality_predictor=None, make=GFL, **kwargs):
    defaults = {
        "backbone": TinyBackbone(),
        "head": make_head(num_classes, quality_predictor),
        "head_in_features": ["p3", "p4"],
        "anchor_generator": DefaultAnchorGenerator(
            sizes=[[64], [128]], aspect_ratios=[1.0], strides=[8, 16], offset=0.0
        ),
        "matcher": ATSSMatcher(),
        "criterion": GFLCriterion(
            cls_loss=QualityFocalLoss(), box_loss=GIoULoss(), dist_loss=DistributionFocalLoss()
        ),
        "num_classes": num_classes,
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    return make(**{**defaults, **kwargs})


def truth_of(boxes, classes=None, image_sizes=None):
    """GroundTruth of ``Boxes`` an image, of class 0 where nothing else is said."""
    if classes is None:
        classes = [torch.zeros(len(x), dtype=torch.int64) for x in boxes]
    return GroundTruth(boxes, classes, image_sizes)


def make_input(height, width, boxes=(), classes=None, **kwargs):
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    classes = [0] * len(boxes) if classes is None else classes
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return {"image": image, "instances": instances, **kwargs}
