from torchvision.models import ResNet101_Weights

from .gflv2_R_50_FPN_ms_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = ResNet101_Weights.IMAGENET1K_V1.url
