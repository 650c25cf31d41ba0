from ..common.models.gfl import model
from ..common.ms_2x import dataloader, lr_multiplier, train
from ..common.optim import optimizer

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
