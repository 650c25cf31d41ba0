"""The best parts of docs/ablations.md, for the generated shapes: DDOD's ATSS, half-stride bins."""

from detectron2.config import LazyCall as L

from gfocal.modeling.recipes import use
from gfocal.modeling.representations import GeneralDistribution

from .shapes_gflv2 import dataloader, lr_multiplier, model, optimizer, train

use(model, matcher="dynamic_atss")
model.head.box_representation = L(GeneralDistribution.uniform)(reg_max=32, width=0.5)
train.output_dir = "./output/shapes_best"
