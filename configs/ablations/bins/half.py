"""33 bins of half a stride."""

from detectron2.config import LazyCall as L

from gfocal.modeling.representations import GeneralDistribution

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

model.head.box_representation = L(GeneralDistribution.uniform)(reg_max=32, width=0.5)
