"""Table 1c: beta = 2.5 of QFL."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="dirac")
model.criterion.cls_loss.beta = 2.5
paper = dict(AP=39.7, AP50=58.1, AP75=42.7)
