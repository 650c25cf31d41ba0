"""GFLV2 with masks, small, on the generated shapes: budget and detector of shapes_gflv2.py."""

from ..common.models.mask_gfl import model as _masks
from .shapes_gflv2 import dataloader, lr_multiplier, model, optimizer, train

model._target_ = _masks._target_
model.update(train_detector=True, roi_heads=_masks.roi_heads)
model.roi_heads.batch_size_per_image = 16
model.roi_heads.mask_head.conv_dims = [64, 64, 64]
for _name in ("train", "test"):
    dataloader[_name].mapper.use_instance_mask = True
dataloader.evaluator.tasks = ["bbox", "segm"]
train.output_dir = "./output/shapes_mask_gfl"
