"""GFLV1 R-18 learns from GFLV1 R-101. The code of LD (https://github.com/HikariTJU/LD) reports 37.5
AP on COCO val2017, 36.5 with LD in the main region alone, and 35.8 without a teacher.

The teacher's weights:

    gfocal convert gfl_r101_fpn_mstrain_2x_coco.pth output/gfl_R_101_FPN_ms_2x.pth
"""

from torchvision.models import ResNet18_Weights

from .gfl_R_50_from_R_101_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 18
train.init_checkpoint = ResNet18_Weights.IMAGENET1K_V1.url
