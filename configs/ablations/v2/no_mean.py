"""The four largest probabilities of a side without their mean."""

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

model.head.quality_predictor.add_mean = False
