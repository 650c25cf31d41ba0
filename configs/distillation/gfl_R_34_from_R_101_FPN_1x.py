"""GFLV1 R-34 learns from GFLV1 R-101. The code of LD (https://github.com/HikariTJU/LD) reports 41.0
AP on COCO val2017, 39.8 with LD in the main region alone, and 38.9 without a teacher.

The teacher's weights:

    gfocal convert gfl_r101_fpn_mstrain_2x_coco.pth output/gfl_R_101_FPN_ms_2x.pth
"""

from torchvision.models import ResNet34_Weights

from .gfl_R_50_from_R_101_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 34
train.init_checkpoint = ResNet34_Weights.IMAGENET1K_V1.url
