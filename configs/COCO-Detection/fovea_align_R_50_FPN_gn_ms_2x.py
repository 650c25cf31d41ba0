"""The shorter side is 640 or 800 px."""

from .fovea_align_R_50_FPN_gn_2x import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.mapper.augmentations[0].update(
    short_edge_length=[640, 800], max_size=1333, sample_style="choice"
)
