"""The mean and variance of the four largest probabilities, without them."""

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

model.head.quality_predictor.add_topk = False
model.head.quality_predictor.add_var = True
