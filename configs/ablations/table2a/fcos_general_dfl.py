"""Table 2a, FCOS: General distribution with DFL."""

from gfocal.modeling.recipes import use

from ..fcos import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="centerness_branch", box="general_dfl")
paper = dict(AP=39.0, AP50=57.0, AP75=42.3)
