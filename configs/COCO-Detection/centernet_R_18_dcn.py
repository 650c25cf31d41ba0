"""CenterNet whose neck has deformable and modulated convolutions (DCNv2)."""

from ..common.centernet import dataloader, lr_multiplier, model, optimizer, train

model.backbone.deformable = True
