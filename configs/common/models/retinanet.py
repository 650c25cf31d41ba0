"""Detectron2's RetinaNet on the ResNet-50 and the pixels of our other models.

Detectron2's own file differs between 0.5 and main. Each config chooses the loss of the classes.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead

from .gfl import model as _gfl

model = L(RetinaNet)(
    num_classes=80,
    backbone=_gfl.backbone,
    head=L(RetinaNetHead)(
        input_shape=[L(ShapeSpec)(channels="${....backbone.out_channels}") for _ in range(5)],
        num_classes="${..num_classes}",
        num_anchors=9,
        conv_dims=[256, 256, 256, 256],
        prior_prob=0.01,
    ),
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
    anchor_generator=L(DefaultAnchorGenerator)(
        # three an octave, from 4 * stride
        sizes=[[4 * s * 2 ** (i / 3) for i in range(3)] for s in (8, 16, 32, 64, 128)],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[8, 16, 32, 64, 128],
        offset=0.0,
    ),
    box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
    anchor_matcher=L(Matcher)(
        thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
    ),
    smooth_l1_beta=0.0,
    box_reg_loss_type="smooth_l1",
    test_score_thresh=0.05,
    test_topk_candidates=1000,
    test_nms_thresh=0.5,
    max_detections_per_image=100,
    pixel_mean=_gfl.pixel_mean,
    pixel_std=_gfl.pixel_std,
    input_format=_gfl.input_format,
)
model.backbone.top_block = L(LastLevelP6P7)(in_channels=2048, out_channels="${..out_channels}")
