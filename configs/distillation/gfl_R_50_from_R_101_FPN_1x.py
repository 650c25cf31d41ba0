"""GFLV1 R-50 learns from GFLV1 R-101. The code of LD (https://github.com/HikariTJU/LD) reports 42.1
AP on COCO val2017, and 40.1 without a teacher.

The teacher's weights:

    gfocal convert gfl_r101_fpn_mstrain_2x_coco.pth output/gfl_R_101_FPN_ms_2x.pth
"""

from detectron2.config import LazyCall as L

from gfocal.modeling.quality import NoQuality

from ..common.data import dataloader
from ..common.models.distilled_gfl import model
from ..common.optim import optimizer
from ..common.schedule import lr_multiplier_1x as lr_multiplier
from ..common.train import train

model.head.quality_predictor = L(NoQuality)()
model.teacher.update(
    config="COCO-Detection/gfl_R_101_FPN_ms_2x.py", weights="./output/gfl_R_101_FPN_ms_2x.pth"
)
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
