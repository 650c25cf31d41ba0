"""Table 2a, FCOS: General distribution."""

from gfocal.modeling.recipes import use

from ..fcos import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="centerness_branch", box="general")
paper = dict(AP=38.8, AP50=56.6, AP75=42.0)
