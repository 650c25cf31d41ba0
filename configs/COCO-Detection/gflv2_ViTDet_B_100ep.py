"""ViTDet: ViT-B with a simple feature pyramid, trained as Detectron2 trains its Mask R-CNN.

It needs Detectron2's main branch, and timm. Images are padded to 1024 x 1024 px.
"""

from detectron2.config import LazyCall as L

from gfocal.backbones import LinearP6P7, from_detectron2_main, layer_norm
from gfocal.solver import vit_lr_decay

from ..common.data_lsj import dataloader
from ..common.models.gfl import model
from ..common.optim import adamw
from ..common.schedule import lr_multiplier_100ep as lr_multiplier
from ..common.train import train

SimpleFeaturePyramid, ViT = from_detectron2_main("SimpleFeaturePyramid", "ViT")

model.backbone = L(SimpleFeaturePyramid)(
    net=L(ViT)(
        img_size="${..square_pad}",
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        drop_path_rate=0.1,
        norm_layer=L(layer_norm)(eps=1e-6),
        window_size=14,
        window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10],  # the others see the whole image
        use_rel_pos=True,
        out_feature="last_feat",
    ),
    in_feature="${.net.out_feature}",
    out_channels=256,
    scale_factors=[2.0, 1.0, 0.5],  # of stride 16: P3, P4, P5
    top_block=L(LinearP6P7)(in_channels="${..out_channels}", out_channels="${..out_channels}"),
    norm="LN",
    square_pad=1024,
)

optimizer = adamw(lr=1e-4, weight_decay=0.1, no_decay=["pos_embed"])
optimizer.params.lr_factor_func = L(vit_lr_decay)(
    rate=0.7, num_layers="${model.backbone.net.depth}"
)

train.max_iter = 184375
train.amp.enabled = True
train.ddp.fp16_compression = True
train.init_checkpoint = (
    "detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_base.pth?matching_heuristics=True"
)
