"""Table 1c: beta = 4 of QFL."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="dirac")
model.criterion.cls_loss.beta = 4.0
paper = dict(AP=38.2, AP50=55.4, AP75=41.6)
