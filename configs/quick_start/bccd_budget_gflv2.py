"""GFLV2 under a small, fixed budget: 1500 iterations of 8 small images, ResNet-18 from scratch.

Made for BCCD (364 images of blood cells) on 2 CPU cores. Takes the overrides of custom_coco.py:

    data.train_json=... data.train_images=... data.val_json=... data.val_images=...
"""

from ..common.schedule import step_schedule
from .custom_coco import data, dataloader, model, optimizer, train

model.backbone.bottom_up.stem.norm = "BN"
model.backbone.bottom_up.stages.update(depth=18, norm="BN")
model.backbone.bottom_up.freeze_at = 0
model.backbone.out_channels = 128
model.head.conv_dims = [128, 128]

data.min_size = 256
data.max_size = 344
data.batch_size = 8

optimizer.lr = 0.02
optimizer.momentum = 0.9
optimizer.weight_decay = 1e-4
optimizer.max_grad_norm = 35.0
lr_multiplier = step_schedule(steps=[1050, 1350], max_iter=1500, warmup_iters=200)

train.init_checkpoint = ""
train.max_iter = 1500
train.eval_period = "${train.max_iter}"  # once, at the end
train.checkpointer = dict(period="${train.max_iter}", max_to_keep=1)
train.seed = 0
train.output_dir = "./output/bccd_budget_gflv2"
