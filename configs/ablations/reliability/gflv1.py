"""gflv2.py without the quality predictor: GFLV1."""

from gfocal.modeling.recipes import use

from .gflv2 import data, dataloader, lr_multiplier, model, optimizer, train

use(model, quality="qfl")
train.output_dir = "./output/reliability_gflv1"
