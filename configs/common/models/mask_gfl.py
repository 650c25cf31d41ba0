"""GFLV2 with ResNet-50-FPN, and Mask R-CNN's mask branch on its detections."""

from detectron2.config import LazyCall as L
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import StandardROIHeads

from gfocal.detectors import MaskGFL

from .gfl import model
from .gfl_mask_rcnn import model as _rcnn

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
    mask_in_features=_rcnn.roi_heads.mask_in_features,
    mask_pooler=_rcnn.roi_heads.mask_pooler,
    mask_head=_rcnn.roi_heads.mask_head,
)
