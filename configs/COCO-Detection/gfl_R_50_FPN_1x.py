from detectron2.config import LazyCall as L

from gfocal.modeling.quality import NoQuality

from .gflv2_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.head.quality_predictor = L(NoQuality)()
