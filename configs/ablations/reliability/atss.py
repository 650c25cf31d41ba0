"""gflv2.py as ATSS: focal loss, a branch for centerness, boxes of single numbers."""

from gfocal.modeling.recipes import use

from .gflv2 import data, dataloader, lr_multiplier, model, optimizer, train

use(model, quality="centerness_branch", box="dirac")
train.output_dir = "./output/reliability_atss"
