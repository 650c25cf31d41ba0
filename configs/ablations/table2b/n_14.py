"""Table 2b: n = 14."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="general_dfl")
model.head.box_representation.reg_max = 14
paper = dict(AP=40.2, AP50=58.3, AP75=43.6)
