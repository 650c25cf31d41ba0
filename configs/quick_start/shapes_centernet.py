"""CenterNet, small, on the generated shapes: budget and ResNet of shapes_gflv2.py, up to res4.

At 192 pixels res5 would have 6 x 6 cells, too few to tell small shapes apart.
"""

from ..common.models.centernet import model
from .shapes_gflv2 import dataloader, lr_multiplier, optimizer, train
from .shapes_gflv2 import model as _small

model.num_classes = 6
model.backbone.bottom_up = _small.backbone.bottom_up
model.backbone.bottom_up.out_features = ["res4"]
model.backbone.in_feature = "res4"
model.backbone.channels = [128, 64]
train.output_dir = "./output/shapes_centernet"
