"""Table 1a, FCOS: centerness-branch."""

from gfocal.modeling.recipes import use

from ..fcos import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="centerness_branch", box="dirac")
paper = dict(AP=38.5, AP50=56.8, AP75=41.6)
