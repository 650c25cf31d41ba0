"""GFLV2, small, on the generated shapes: from scratch to AP in minutes on 2 CPU cores.

The ResNet has one block a stage, and FPN and head are narrow. Otherwise the detector is that of
COCO-Detection/gflv2_R_50_FPN_1x.py.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import CosineParamScheduler

from gfocal.data.shapes import register_shapes
from gfocal.solver import AdamW

from ..common.data import dataloader
from ..common.models.gfl import model
from ..common.train import train


def _stage(in_channels, out_channels, stride):
    return L(ResNet.make_stage)(
        block_class=BasicBlock,
        num_blocks=1,
        stride=stride,
        in_channels=in_channels,
        out_channels=out_channels,
        norm="BN",
    )


model.num_classes = 6
model.backbone.bottom_up.stem.out_channels = 32
model.backbone.bottom_up.stem.norm = "BN"
model.backbone.bottom_up.stages = [
    _stage(32, 32, 1),
    _stage(32, 64, 2),
    _stage(64, 128, 2),
    _stage(128, 256, 2),
]
model.backbone.bottom_up.freeze_at = 0
model.backbone.out_channels = 64
model.head.conv_dims = [64, 64]

dataloader.train.dataset.names = L(register_shapes)(split="train")
dataloader.test.dataset.names = L(register_shapes)(split="val")
for _loader in (dataloader.train, dataloader.test):
    _loader.mapper.augmentations[0].short_edge_length = 192
    _loader.num_workers = 2
dataloader.train.total_batch_size = 8

# From scratch in few iterations, AdamW and a cosine get further than SGD and steps.
optimizer = L(AdamW)(
    params=L(get_default_optimizer_params)(),
    lr=0.002,
    betas=[0.9, 0.99],
    weight_decay=0.05,
    max_grad_norm=None,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.01),
    warmup_length=100 / 1200,
    warmup_factor=0.001,
)

train.max_iter = 1200
train.eval_period = "${train.max_iter}"  # once, at the end
train.checkpointer.period = "${train.max_iter}"
train.seed = 0
train.output_dir = "./output/shapes_gflv2"
