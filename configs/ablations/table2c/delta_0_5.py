"""Table 2c: delta = 0.5."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="general_dfl")
model.head.box_representation.bin_width = 0.5
paper = dict(AP=40.2, AP50=58.4, AP75=43.0)
