"""Table 1a, FCOS: IoU-guided."""

from gfocal.modeling.recipes import use

from ..fcos import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="iou_guided", box="dirac")
paper = dict(AP=38.2, AP50=57.0, AP75=41.1)
