"""Mask R-CNN with GFL's proposals, small, on the generated shapes: budget of shapes_gflv2.py."""

from ..common.models.gfl_mask_rcnn import model
from .shapes_gfl_faster_rcnn import dataloader, lr_multiplier, optimizer, train
from .shapes_gfl_faster_rcnn import model as _faster

_heads = model.roi_heads
model.update(backbone=_faster.backbone, proposal_generator=_faster.proposal_generator)
model.roi_heads = _faster.roi_heads
model.roi_heads.update(
    mask_in_features=_heads.mask_in_features,
    mask_pooler=_heads.mask_pooler,
    mask_head=_heads.mask_head,
)
model.roi_heads.mask_head.conv_dims = [64, 64, 64]
for _name in ("train", "test"):
    dataloader[_name].mapper.use_instance_mask = True
dataloader.evaluator.tasks = ["bbox", "segm"]
train.output_dir = "./output/shapes_gfl_mask_rcnn"
