"""Table 2a, FCOS: Gaussian."""

from gfocal.modeling.recipes import use

from ..fcos import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="centerness_branch", box="gaussian")
paper = dict(AP=38.6, AP50=56.5, AP75=41.6)
