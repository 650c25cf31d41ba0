"""FoveaBox as it is: the baseline of fovea_qfl.py."""

from detectron2.config import LazyCall as L

from gfocal.modeling.terms import FocalLoss

from ..fovea import dataloader, lr_multiplier, model, optimizer, train

model.criterion.cls_loss = L(FocalLoss)(alpha=0.4, gamma=1.5)
paper = dict(AP=36.4, AP50=55.8, AP75=38.8)
