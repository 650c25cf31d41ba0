"""Table 2b: n = 16."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="general_dfl")
model.head.box_representation.reg_max = 16
paper = dict(AP=40.2, AP50=58.6, AP75=43.4)
