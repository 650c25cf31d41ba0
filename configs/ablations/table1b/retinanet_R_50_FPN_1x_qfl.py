"""RetinaNet with Quality Focal Loss (GFL v1, https://arxiv.org/abs/2006.04388, Table 1b)."""

from gfocal.detectors.retinanet import QFLRetinaNet

from ...common.data import dataloader
from ...common.models.retinanet import model
from ...common.optim import optimizer
from ...common.schedule import lr_multiplier_1x as lr_multiplier
from ...common.train import train

model._target_ = QFLRetinaNet
model.qfl_beta = 2.0

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
paper = dict(AP=36.4, AP50=56.3, AP75=39.1)
