"""Table 3: DFL."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="centerness_branch", box="general_dfl")
paper = dict(AP=39.5, AP50=57.3, AP75=42.8)
