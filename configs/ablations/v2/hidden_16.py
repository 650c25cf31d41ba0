"""A hidden layer of 16 channels instead of 64."""

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

model.head.quality_predictor.hidden_dim = 16
