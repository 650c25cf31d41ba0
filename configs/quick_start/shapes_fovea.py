"""FoveaBox, small, on the generated shapes: network and budget of shapes_gflv2.py."""

from ..common.models.fovea import model
from .shapes_gflv2 import dataloader, lr_multiplier, optimizer, train
from .shapes_gflv2 import model as _small

model.num_classes = 6
model.backbone.bottom_up = _small.backbone.bottom_up
model.backbone.out_channels = 64
model.backbone.top_block.in_channels = 256  # channels of res5
model.head.conv_dims = [64, 64]
optimizer.lr = 0.001  # a head without norm is not stable at 0.002
train.output_dir = "./output/shapes_fovea"
