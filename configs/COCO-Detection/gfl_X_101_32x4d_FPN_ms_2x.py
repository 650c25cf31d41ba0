from .gfl_X_101_32x4d_dcn_FPN_ms_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.deform_on_per_stage = [False, False, False, False]
