"""Table 1a, ATSS: IoU-branch."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="iou_branch", box="dirac")
paper = dict(AP=39.6, AP50=57.6, AP75=43.0)
