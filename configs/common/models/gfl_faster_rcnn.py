"""Detectron2's Faster R-CNN with ResNet-50-FPN, whose proposals are GFLV2's, of one class."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    StandardROIHeads,
)

from gfocal.detectors import GFLProposals

from .gfl import model as _gfl

_head = _gfl.head
_head.num_classes = "${..num_classes}"
_head.in_channels = "${...backbone.out_channels}"

model = L(GeneralizedRCNN)(
    backbone=_gfl.backbone,
    proposal_generator=L(GFLProposals)(
        in_features=_gfl.head_in_features,
        head=_head,
        anchor_generator=_gfl.anchor_generator,
        matcher=_gfl.matcher,
        criterion=_gfl.criterion,
        num_classes=1,  # or that of the ROI heads: classes are then trained here too
        pre_nms_topk=[2000, 1000],  # in training, in inference
        post_nms_topk=[1000, 1000],
        nms_thresh=0.7,
        size_divisibility=32,
    ),
    roi_heads=L(StandardROIHeads)(
        num_classes=80,
        batch_size_per_image=512,
        positive_fraction=0.25,
        proposal_matcher=L(Matcher)(
            thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False
        ),
        box_in_features=["p3", "p4", "p5"],
        box_pooler=L(ROIPooler)(
            output_size=7,
            scales=[1 / 8, 1 / 16, 1 / 32],
            sampling_ratio=0,
            pooler_type="ROIAlignV2",
        ),
        box_head=L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels="${....backbone.out_channels}", height=7, width=7),
            conv_dims=[],
            fc_dims=[1024, 1024],
        ),
        box_predictor=L(FastRCNNOutputLayers)(
            input_shape=L(ShapeSpec)(channels=1024),
            test_score_thresh=0.05,
            box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
            num_classes="${..num_classes}",
        ),
    ),
    pixel_mean=_gfl.pixel_mean,
    pixel_std=_gfl.pixel_std,
    input_format="RGB",
)
