"""Table 2a, ATSS: Dirac delta."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="centerness_branch", box="dirac")
paper = dict(AP=39.2, AP50=57.4, AP75=42.2)
