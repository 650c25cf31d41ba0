"""GFLV2 with ResNet-50-FPN, and Mask R-CNN's mask branch on its detections."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead, StandardROIHeads

from gfocal.detectors import MaskGFL

from .gfl import model

model._target_ = MaskGFL
model.train_detector = True  # False: masks for the detector of train.init_checkpoint
model.roi_heads = L(StandardROIHeads)(
    num_classes="${..num_classes}",
    batch_size_per_image=128,  # boxes for the training of masks
    positive_fraction=1.0,
    proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
    box_in_features=[],  # no second stage for boxes
    box_pooler=None,
    box_head=None,
    box_predictor=None,
    mask_in_features=["p3", "p4", "p5"],
    mask_pooler=L(ROIPooler)(
        output_size=14,
        scales=[1 / 8, 1 / 16, 1 / 32],
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
    ),
    mask_head=L(MaskRCNNConvUpsampleHead)(
        input_shape=L(ShapeSpec)(channels="${....backbone.out_channels}", width=14, height=14),
        num_classes="${..num_classes}",
        conv_dims=[256, 256, 256, 256, 256],
    ),
)
