"""FoveaBox with GFL's distributions of the sides, trained by GIoU and DFL. This is ours, of no
paper. The bins reach 32 strides, as FoveaBox's own sides do."""

from gfocal.modeling.recipes import use

from ..fovea import dataloader, lr_multiplier, model, optimizer, train

use(model, box="general_dfl")
model.head.box_representation.bin_width = 2.0
