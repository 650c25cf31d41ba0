"""RetinaNet as it is: the baseline of retinanet_R_50_FPN_1x_qfl.py."""

from ...common.data import dataloader
from ...common.models.retinanet import model
from ...common.optim import optimizer
from ...common.schedule import lr_multiplier_1x as lr_multiplier
from ...common.train import train

model.focal_loss_alpha = 0.25
model.focal_loss_gamma = 2.0

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
paper = dict(AP=35.6, AP50=55.5, AP75=38.1)
