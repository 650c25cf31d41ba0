"""GFLV1 under the budget of bccd_budget_gflv2.py."""

from detectron2.config import LazyCall as L

from gfocal.modeling.quality import NoQuality

from .bccd_budget_gflv2 import data, dataloader, lr_multiplier, model, optimizer, train

model.head.quality_predictor = L(NoQuality)()
train.output_dir = "./output/bccd_budget_gflv1"
