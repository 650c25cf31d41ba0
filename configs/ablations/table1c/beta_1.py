"""Table 1c: beta = 1 of QFL."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="dirac")
model.criterion.cls_loss.beta = 1.0
paper = dict(AP=39.0, AP50=58.1, AP75=41.7)
