"""CornerNet, small, on the generated shapes: budget of shapes_gflv2.py, one hourglass of three
halvings."""

from ..common.models.cornernet import model
from .shapes_gflv2 import dataloader, lr_multiplier, optimizer, train

model.num_classes = 6
model.backbone.channels = [32, 48, 64, 96]
model.backbone.blocks = [1, 1, 1, 2]
model.backbone.num_stacks = 1
model.backbone.out_channels = 48
model.head.pool_channels = 32
model.head.conv_dim = 48
train.output_dir = "./output/shapes_cornernet"
