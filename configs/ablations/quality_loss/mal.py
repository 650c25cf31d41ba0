"""DEIM's MAL: a positive weighs 1, and its label is IoU^1.5."""

from detectron2.config import LazyCall as L

from gfocal.modeling.terms import ScoreLoss

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

model.criterion.cls_loss = L(ScoreLoss)(maps="mal")
