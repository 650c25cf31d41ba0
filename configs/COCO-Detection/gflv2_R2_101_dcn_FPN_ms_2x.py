from detectron2.config import LazyCall as L

from gfocal.backbones import DeepStem, make_res2net_stages

from .gflv2_R_50_FPN_ms_2x import dataloader, lr_multiplier, model, optimizer, train

# Res2Net-101 v1d 26w 4s, deformable in c4 and c5
model.backbone.bottom_up.stem = L(DeepStem)(in_channels=3, out_channels=64, norm="FrozenBN")
model.backbone.bottom_up.stages = L(make_res2net_stages)(
    depth=101,
    scales=4,
    base_width=26,
    deform_on_per_stage=[False, False, True, True],
    norm="FrozenBN",
)
train.init_checkpoint = (
    "https://download.openmmlab.com/pretrain/third_party/res2net101_v1d_26w_4s_mmdetv2-f0a600f9.pth"
)
