"""Table 2c: delta = 2."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="general_dfl")
model.head.box_representation.bin_width = 2.0
paper = dict(AP=39.9, AP50=58.3, AP75=42.9)
