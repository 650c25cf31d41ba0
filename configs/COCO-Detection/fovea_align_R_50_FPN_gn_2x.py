"""FoveaBox with FeatureAlign and group norm in both towers."""

from detectron2.config import LazyCall as L

from gfocal.backbones import DeformConv2d
from gfocal.modeling.feature_align import FeatureAlign

from ..common.schedule import lr_multiplier_2x as lr_multiplier
from .fovea_R_50_FPN_1x import dataloader, model, optimizer, train

model.head.norm = "GN"
model.head.feature_align = L(FeatureAlign)(
    conv=L(DeformConv2d)(
        in_channels="${....backbone.out_channels}",
        out_channels="${....backbone.out_channels}",
        kernel_size=3,
        padding=1,
        bias=False,
    ),
    groups=4,
)
model.head.cls_convs = [[1024, 3], [1024, 1]]  # channels, kernel size
optimizer.max_grad_norm = 35.0
train.max_iter = 180000
