"""CenterNet with GFL's distributions in place of sizes and offset: left, top, right and bottom from
the middle of the centre's cell, trained by DFL and L1. This is ours, of no paper."""

from detectron2.config import LazyCall as L

from gfocal.modeling.centers import CenterDistributions
from gfocal.modeling.representations import GeneralDistribution

from ...common.centernet import dataloader, lr_multiplier, model, optimizer, train

# 17 bins at up to 128 cells, 512 pixels: of small boxes about one a cell, of large ones fewer.
model.box = L(CenterDistributions)(
    representation=L(GeneralDistribution.geometric)(reg_max=16, first=1.0, last=128.0)
)
