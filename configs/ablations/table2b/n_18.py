"""Table 2b: n = 18."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="general_dfl")
model.head.box_representation.reg_max = 18
paper = dict(AP=40.1, AP50=58.1, AP75=43.1)
