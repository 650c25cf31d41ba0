from .gflv2_R_50_FPN_ms_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.update(
    depth=101,
    num_groups=32,
    width_per_group=4,
    deform_on_per_stage=[False, False, True, True],  # c4 and c5, as the released weights have it
)
train.init_checkpoint = (
    "https://download.openmmlab.com/pretrain/third_party/resnext101_32x4d-a5af3160.pth"
)
