"""A RetinaNet small enough for a test."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead

from gfocal.detectors.retinanet import QFLRetinaNet

from .tiny import TinyBackbone


def make_retinanet(num_classes=3, cls=QFLRetinaNet, **kwargs):
    """Two levels, three anchors a location; its weights and scores are not all alike."""
    head = RetinaNetHead(
        input_shape=[ShapeSpec(channels=8)] * 2,
        num_classes=num_classes,
        num_anchors=3,
        conv_dims=[8],
        prior_prob=0.2,
    )
    for conv in (head.cls_subnet[0], head.bbox_subnet[0], head.cls_score, head.bbox_pred):
        torch.nn.init.normal_(conv.weight, std=0.1)
    defaults = {
        "backbone": TinyBackbone(),
        "head": head,
        "head_in_features": ["p3", "p4"],
        "anchor_generator": DefaultAnchorGenerator(
            sizes=[[32], [64]], aspect_ratios=[0.5, 1.0, 2.0], strides=[8, 16], offset=0.0
        ),
        "box2box_transform": Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        "anchor_matcher": Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        "num_classes": num_classes,
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    return cls(**{**defaults, **kwargs})
