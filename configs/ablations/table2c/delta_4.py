"""Table 2c: delta = 4."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="general_dfl")
model.head.box_representation.bin_width = 4.0
paper = dict(AP=39.8, AP50=58.5, AP75=42.8)
