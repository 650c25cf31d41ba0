"""FoveaBox with Quality Focal Loss (GFL v1, https://arxiv.org/abs/2006.04388, Table 1b).

No code of this row was published. [own]: the label is the IoU of the decoded box, not clipped, with
the true box. beta is 2, and QFL has no alpha. The divisor, positives and one more an image, stays
FoveaBox's, and so do the boxes' loss and its weights.
"""

from detectron2.config import LazyCall as L

from gfocal.modeling.terms import QualityFocalLoss

from ..fovea import dataloader, lr_multiplier, model, optimizer, train

model.criterion.cls_loss = L(QualityFocalLoss)(beta=2.0)
paper = dict(AP=37.0, AP50=55.7, AP75=39.6)
