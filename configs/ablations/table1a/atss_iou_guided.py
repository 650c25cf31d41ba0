"""Table 1a, ATSS: IoU-guided."""

from gfocal.modeling.recipes import use

from ..atss import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="iou_guided", box="dirac")
paper = dict(AP=38.9, AP50=57.4, AP75=41.8)
