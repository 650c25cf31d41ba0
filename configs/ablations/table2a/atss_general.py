"""Table 2a, ATSS: General distribution."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="centerness_branch", box="general")
paper = dict(AP=39.3, AP50=57.1, AP75=42.5)
