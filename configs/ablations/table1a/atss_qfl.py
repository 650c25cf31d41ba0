"""Table 1a, ATSS: joint, QFL."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="dirac")
paper = dict(AP=39.9, AP50=58.5, AP75=43.0)
