"""GFLV2 R-50 learns from GFLV2 R-101. The code of LD (https://github.com/HikariTJU/LD) reports 42.7
AP on COCO val2017; GFLV2 without a teacher has 41.0.

The teacher's weights, from the authors' file:

    gfocal convert gfocal_r101_fpn_ms2x.pth output/gflv2_R_101_FPN_ms_2x.pth
"""

from ..common.data import dataloader
from ..common.models.distilled_gfl import model
from ..common.optim import optimizer
from ..common.schedule import lr_multiplier_1x as lr_multiplier
from ..common.train import train

model.teacher.update(
    config="COCO-Detection/gflv2_R_101_FPN_ms_2x.py", weights="./output/gflv2_R_101_FPN_ms_2x.pth"
)
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
