"""The common base of GFL's ablations (https://arxiv.org/abs/2006.04388, Sec. 4, App. D):
ResNet-50, 1x. A row replaces parts of the model; ``paper`` is the paper's result for it."""

from ..common.data import dataloader
from ..common.models.gfl import model
from ..common.optim import optimizer
from ..common.schedule import lr_multiplier_1x as lr_multiplier
from ..common.train import train

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
