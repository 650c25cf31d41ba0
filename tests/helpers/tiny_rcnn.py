"""R-CNNs of Detectron2 small enough for a test, whose first stage is GFLProposals."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)
from detectron2.structures import BitMasks

from gfocal.detectors import GFLProposals

from .tiny import TinyBackbone, make_gfl, make_head

LEVELS = ["p3", "p4"]


def make_proposals(num_classes=1, **kwargs):
    parts = make_gfl()
    arguments = {
        "in_features": LEVELS,
        "head": make_head(num_classes),
        "anchor_generator": parts.anchor_generator,
        "matcher": parts.matcher,
        "criterion": parts.criterion,
        "num_classes": num_classes,
        "size_divisibility": 16,
        "statistics_period": 0,
    }
    return GFLProposals(**{**arguments, **kwargs})


def box_head(cascade_weights=(10.0, 10.0, 5.0, 5.0), num_classes=3, **kwargs):
    head = FastRCNNConvFCHead(ShapeSpec(channels=8, height=4, width=4), conv_dims=[], fc_dims=[16])
    predictor = FastRCNNOutputLayers(
        ShapeSpec(channels=16),
        box2box_transform=Box2BoxTransform(cascade_weights),
        num_classes=num_classes,
        **kwargs,
    )
    return head, predictor


def pooler(size):
    return ROIPooler(size, scales=(1 / 8, 1 / 16), sampling_ratio=0, pooler_type="ROIAlignV2")


SHARED = {
    "num_classes": 3,
    "batch_size_per_image": 16,
    "positive_fraction": 0.25,
    "proposal_matcher": Matcher([0.5], [0, 1]),
    "box_in_features": LEVELS,
}


def faster_heads():
    head, predictor = box_head()
    return StandardROIHeads(**SHARED, box_pooler=pooler(4), box_head=head, box_predictor=predictor)


def mask_heads():
    head, predictor = box_head()
    return StandardROIHeads(
        **SHARED,
        box_pooler=pooler(4),
        box_head=head,
        box_predictor=predictor,
        mask_in_features=LEVELS,
        mask_pooler=pooler(7),
        mask_head=MaskRCNNConvUpsampleHead(
            ShapeSpec(channels=8, height=7, width=7), num_classes=3, conv_dims=[8, 8]
        ),
    )


def cascade_heads():
    stages = [
        box_head([w, w, w / 2, w / 2], cls_agnostic_bbox_reg=True) for w in (10.0, 20.0, 30.0)
    ]
    shared = {k: v for k, v in SHARED.items() if k != "proposal_matcher"}
    return CascadeROIHeads(
        **shared,
        box_pooler=pooler(4),
        box_heads=[head for head, _ in stages],
        box_predictors=[predictor for _, predictor in stages],
        proposal_matchers=[Matcher([x], [0, 1]) for x in (0.5, 0.6, 0.7)],
    )


def make_rcnn(roi_heads, **kwargs):
    return GeneralizedRCNN(
        backbone=TinyBackbone(),
        proposal_generator=make_proposals(**kwargs),
        roi_heads=roi_heads,
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
        input_format="RGB",
    )


def with_masks(inputs):
    instances = inputs["instances"]
    masks = torch.zeros(len(instances), *instances.image_size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, instances.gt_boxes.tensor.int().tolist()):
        mask[y0:y1, x0:x1] = True
    instances.gt_masks = BitMasks(masks)
    return inputs
