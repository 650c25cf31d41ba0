"""Table 1a, FCOS: joint, QFL."""

from gfocal.modeling.recipes import use

from ..fcos import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl", box="dirac")
paper = dict(AP=39.0, AP50=57.8, AP75=41.9)
