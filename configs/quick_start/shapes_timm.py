"""GFLV2 on the generated shapes with timm's MobileNetV3-small, from scratch: data, budget and head
are those of shapes_gflv2.py. It needs timm: pip install 'gfocal[timm]'.

Another network: model.backbone.bottom_up.name=resnet18. Weights of timm to start from:
model.backbone.bottom_up.pretrained=true.
"""

from detectron2.config import LazyCall as L

from gfocal.backbones import TimmBackbone

from .shapes_gflv2 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up = L(TimmBackbone)(
    name="mobilenetv3_small_100", out_features=["res3", "res4", "res5"], pretrained=False
)
train.output_dir = "./output/shapes_timm"
