"""The largest probability of a side alone."""

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

model.head.quality_predictor.topk = 1
model.head.quality_predictor.add_mean = False
