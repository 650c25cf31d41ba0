"""Detectron2's Cascade Mask R-CNN with ResNet-50-FPN, whose proposals are GFLV2's, of one class."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
)

from .gfl_mask_rcnn import model

model.roi_heads.update(
    _target_=CascadeROIHeads,
    box_heads=[
        L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels="${.....backbone.out_channels}", height=7, width=7),
            conv_dims=[],
            fc_dims=[1024, 1024],
        )
        for _ in range(3)
    ],
    box_predictors=[
        L(FastRCNNOutputLayers)(
            input_shape=L(ShapeSpec)(channels=1024),
            test_score_thresh=0.05,
            box2box_transform=L(Box2BoxTransform)(weights=[x, x, x / 2, x / 2]),
            cls_agnostic_bbox_reg=True,
            num_classes="${...num_classes}",
        )
        for x in (10.0, 20.0, 30.0)
    ],
    proposal_matchers=[
        L(Matcher)(thresholds=[x], labels=[0, 1], allow_low_quality_matches=False)
        for x in (0.5, 0.6, 0.7)
    ],
)
for _name in ("box_head", "box_predictor", "proposal_matcher"):
    model.roi_heads.pop(_name)
