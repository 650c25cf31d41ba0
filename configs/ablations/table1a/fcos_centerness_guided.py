"""Table 1a, FCOS: centerness-guided."""

from gfocal.modeling.recipes import use

from ..fcos import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="centerness_guided", box="dirac")
paper = dict(AP=37.9, AP50=56.7, AP75=40.7)
