"""MViTv2-T with FPN, trained as Detectron2 trains its Mask R-CNN.

It needs Detectron2's main branch, and timm.
"""

from detectron2.config import LazyCall as L

from gfocal.backbones import from_detectron2_main, layer_norm

from ..common.data_crop import dataloader
from ..common.models.gfl import model
from ..common.optim import adamw
from ..common.schedule import lr_multiplier_36ep as lr_multiplier
from ..common.train import train

(MViT,) = from_detectron2_main("MViT")

model.backbone.bottom_up = L(MViT)(
    embed_dim=96,
    depth=10,
    num_heads=1,
    last_block_indexes=[0, 2, 7, 9],
    drop_path_rate=0.2,
    norm_layer=L(layer_norm)(eps=1e-6),
    out_features=["scale3", "scale4", "scale5"],  # strides 8, 16, 32
)
model.backbone.in_features = "${.bottom_up.out_features}"

dataloader.train.total_batch_size = 64
optimizer = adamw(lr=1.6e-4, weight_decay=0.1, no_decay=["pos_embed", "rel_pos_h", "rel_pos_w"])

train.max_iter = 67500
train.amp.enabled = True
train.ddp.fp16_compression = True
train.init_checkpoint = "detectron2://ImageNetPretrained/mvitv2/MViTv2_T_in1k.pyth"
