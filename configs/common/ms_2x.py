"""24 epochs with multi-scale training: the shorter side is drawn from 480..960, the longer is at
most 1333 px.

The official v1 configs and the published v1 models draw it from 480..800:
``dataloader.train.mapper.augmentations.0.short_edge_length=[480,800]``.
"""

from .data import dataloader
from .schedule import lr_multiplier_2x as lr_multiplier
from .train import train

dataloader.train.mapper.augmentations[0].update(
    short_edge_length=[480, 960], max_size=1333, sample_style="range"
)
train.max_iter = 180000
