"""Mask R-CNN whose first stage is GFLV2, of one class. No weights of it were published."""

from ..common.data_masks import dataloader
from ..common.models.gfl_mask_rcnn import model
from ..common.optim import optimizer
from ..common.schedule import lr_multiplier_1x as lr_multiplier
from ..common.train import train

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
