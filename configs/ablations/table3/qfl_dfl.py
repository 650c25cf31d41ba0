"""Table 3: QFL and DFL, which is GFL."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="general_dfl")
paper = dict(AP=40.2, AP50=58.6, AP75=43.4)
