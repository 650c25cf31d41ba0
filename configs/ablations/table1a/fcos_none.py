"""Table 1a, FCOS: without quality branch."""

from gfocal.modeling.recipes import use

from ..fcos import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="none", box="dirac")
paper = dict(AP=37.8, AP50=56.2, AP75=40.8)
