"""Table 1a, FCOS: IoU-branch."""

from gfocal.modeling.recipes import use

from ..fcos import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="iou_branch", box="dirac")
paper = dict(AP=38.7, AP50=56.7, AP75=42.0)
