"""GFLV2 with masks of its detections. No weights of it were published.

With train.init_checkpoint of a trained GFLV2 and model.train_detector=False only the masks are
learnt.
"""

from ..common.data_masks import dataloader
from ..common.models.mask_gfl import model
from ..common.optim import optimizer
from ..common.schedule import lr_multiplier_1x as lr_multiplier
from ..common.train import train

train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
