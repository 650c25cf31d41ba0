"""Table 1a, ATSS: centerness-guided."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="centerness_guided", box="dirac")
paper = dict(AP=38.2, AP50=56.2, AP75=41.0)
