"""Swin-T with FPN: AdamW as the paper of Swin has it (https://arxiv.org/abs/2103.14030, Sec. 4.2),
the images and the 3x schedule of Detectron2.

It needs Detectron2's main branch, and timm.
"""

from detectron2.config import LazyCall as L

from gfocal.backbones import from_detectron2_main

from ..common.data_crop import dataloader
from ..common.models.gfl import model
from ..common.optim import adamw
from ..common.schedule import lr_multiplier_3x as lr_multiplier
from ..common.train import train

(SwinTransformer,) = from_detectron2_main("SwinTransformer")

model.backbone.bottom_up = L(SwinTransformer)(
    embed_dim=96,
    depths=[2, 2, 6, 2],
    num_heads=[3, 6, 12, 24],
    drop_path_rate=0.2,
    out_indices=[1, 2, 3],
)
model.backbone.in_features = ["p1", "p2", "p3"]  # strides 8, 16, 32

optimizer = adamw(lr=1e-4, weight_decay=0.05, no_decay=["relative_position_bias_table"])

train.max_iter = 270000
train.amp.enabled = True
train.init_checkpoint = (
    "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
    "swin_tiny_patch4_window7_224.pth?matching_heuristics=True"
)
