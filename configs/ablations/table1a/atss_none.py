"""Table 1a, ATSS: without quality branch."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="none", box="dirac")
paper = dict(AP=38.0, AP50=56.5, AP75=40.7)
