from detectron2.config import LazyCall as L

from gfocal.modeling.quality import NoQuality

from .gflv2_X_101_32x4d_dcn_FPN_ms_2x import dataloader, lr_multiplier, model, optimizer, train

model.head.quality_predictor = L(NoQuality)()
