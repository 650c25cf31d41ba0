"""Table 1c: beta = 0 of QFL."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="dirac")
model.criterion.cls_loss.beta = 0.0
paper = dict(AP=37.6, AP50=55.4, AP75=40.3)
