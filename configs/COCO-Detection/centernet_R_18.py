"""CenterNet, objects as points (https://arxiv.org/abs/1904.07850), with plain convolutions."""

from ..common.centernet import dataloader, lr_multiplier, model, optimizer, train
