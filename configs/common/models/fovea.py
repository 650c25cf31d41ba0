"""FoveaBox (https://arxiv.org/abs/1904.03797) with ResNet-50-FPN: GFL's detector with its parts."""

from detectron2.config import LazyCall as L

from gfocal.backbones import LinearP6P7, res5_channels
from gfocal.modeling.recipes import use
from gfocal.modeling.terms import FocalLoss

from .gfl import model

model.backbone.top_block = L(LinearP6P7)(
    in_feature="res5",
    in_channels=L(res5_channels)(depth="${...bottom_up.stages.depth}"),
    out_channels="${..out_channels}",
)
model.head.norm = ""
model.head.level_scales = False
use(model, quality="none", box="log", matcher="fovea")
model.criterion.cls_loss = L(FocalLoss)(alpha=0.4, gamma=1.5)
model.test_nms_thresh = 0.5
model.test_clip_margin = 1.0  # to width - 1 and height - 1, as the published code does
