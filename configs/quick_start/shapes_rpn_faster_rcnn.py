"""Faster R-CNN with Detectron2's RPN: what shapes_gfl_faster_rcnn.py is compared with.

Backbone, second stage and budget are the same, and so are the numbers of proposals. RPN has
Detectron2's settings, on the three levels of the other: anchors of 4 strides, in three shapes.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead

from .shapes_gfl_faster_rcnn import dataloader, lr_multiplier, model, optimizer, train

_gfl = model.proposal_generator
model.proposal_generator = L(RPN)(
    in_features=_gfl.in_features,
    head=L(StandardRPNHead)(in_channels="${...backbone.out_channels}", num_anchors=3),
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=[[4 * stride] for stride in _gfl.anchor_generator.strides],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=_gfl.anchor_generator.strides,
        offset=0.0,
    ),
    anchor_matcher=L(Matcher)(
        thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
    ),
    box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
    batch_size_per_image=256,
    positive_fraction=0.5,
    pre_nms_topk=_gfl.pre_nms_topk,
    post_nms_topk=_gfl.post_nms_topk,
    nms_thresh=_gfl.nms_thresh,
)
train.output_dir = "./output/shapes_rpn_faster_rcnn"
