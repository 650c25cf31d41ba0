"""Table 1c: beta = 2 of QFL."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="dirac")
model.criterion.cls_loss.beta = 2.0
paper = dict(AP=39.9, AP50=58.5, AP75=43.0)
