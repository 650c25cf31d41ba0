"""SSD300 with VGG-16 (https://arxiv.org/abs/1512.02325), trained as in mmdetection."""

from gfocal.modeling.priors import prior_sizes

from .ssd512_VGG_16 import dataloader, lr_multiplier, model, optimizer, train

dataloader.size = 300
model.backbone.extra_levels = [[512, 3, 2, 1], [256, 3, 2, 1], [256, 3, 1, 0], [256, 3, 1, 0]]
model.backbone.strides = [8, 16, 32, 64, 100, 300]
model.anchor_generator.sizes = prior_sizes(300, num_levels=6, percents=(7, 15, 90))
model.anchor_generator.aspect_ratios = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
