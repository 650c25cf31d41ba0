"""CenterNet, small, on the generated shapes: network and budget of shapes_gflv2.py."""

from ..common.models.centernet import model
from .shapes_gflv2 import dataloader, lr_multiplier, optimizer, train
from .shapes_gflv2 import model as _small

model.num_classes = 6
model.backbone.bottom_up = _small.backbone.bottom_up
model.backbone.bottom_up.out_features = ["res5"]
model.backbone.channels = [128, 64, 64]
train.output_dir = "./output/shapes_centernet"
