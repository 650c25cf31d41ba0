"""CenterNet with QFL on the heat map: a centre's score is trained to be the IoU of its box. This is
ours, of no paper."""

from detectron2.config import LazyCall as L

from gfocal.modeling.centers import CenterQualityFocalLoss

from ...common.centernet import dataloader, lr_multiplier, model, optimizer, train

model.heat_loss = L(CenterQualityFocalLoss)(qfl_beta=2.0)
