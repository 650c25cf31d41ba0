"""Table 2a, ATSS: Gaussian."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="centerness_branch", box="gaussian")
paper = dict(AP=39.3, AP50=57.0, AP75=42.4)
