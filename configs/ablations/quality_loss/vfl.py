"""Varifocal loss: a positive weighs as much as its IoU."""

from detectron2.config import LazyCall as L

from gfocal.modeling.terms import ScoreLoss

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

model.criterion.cls_loss = L(ScoreLoss)(maps="vfl")
