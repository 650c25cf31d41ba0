"""SSD, small, on the generated shapes: the budget of shapes_gflv2.py.

VGG-16 has a quarter of its width, and batch norm, without which it does not learn from scratch in
so few iterations. The images are 192 x 192, and there are five levels.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from gfocal.modeling.priors import prior_sizes

from ..common.models.ssd import model
from .shapes_gflv2 import dataloader, lr_multiplier, optimizer, train

model.num_classes = 6
model.backbone.bottom_up.width = 16
model.backbone.bottom_up.norm = "BN"
model.backbone.extra_levels = [[128, 3, 2, 1], [64, 3, 2, 1], [64, 3, 2, 1]]
model.backbone.strides = [8, 16, 32, 64, 128]
model.anchor_generator.sizes = prior_sizes(192, num_levels=5, percents=(7, 15, 90))
model.anchor_generator.aspect_ratios = [[2], [2, 3], [2, 3], [2], [2]]
model.pixel_std = [58.395, 57.12, 57.375]

for _loader in (dataloader.train, dataloader.test):
    _loader.mapper.augmentations[0] = L(T.Resize)(shape=[192, 192])
train.output_dir = "./output/shapes_ssd"
