"""IA-BCE: the label is the score^0.25 times the IoU^0.75."""

from detectron2.config import LazyCall as L

from gfocal.modeling.terms import ScoreLoss

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

model.criterion.cls_loss = L(ScoreLoss)(maps="ia_bce")
