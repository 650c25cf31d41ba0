"""A teacher for shapes_distilled.py: shapes_gflv2.py with two blocks a stage, and a head of
twice the depth and width."""

from .shapes_gflv2 import dataloader, lr_multiplier, model, optimizer, train

for _stage in model.backbone.bottom_up.stages:
    _stage.num_blocks = 2
    _stage.stride_per_block = [_stage.pop("stride"), 1]
model.head.conv_dims = [128, 128, 128, 128]
train.output_dir = "./output/shapes_teacher"
