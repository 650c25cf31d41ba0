"""RegNetX-4GF with FPN: network, weights and weight decay of Detectron2's Mask R-CNN."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.regnet import RegNet, ResBottleneckBlock, SimpleStem

from ..common.data import dataloader
from ..common.models.gfl import model
from ..common.optim import optimizer
from ..common.schedule import lr_multiplier_1x as lr_multiplier
from ..common.train import train

model.backbone.bottom_up = L(RegNet)(
    stem_class=SimpleStem,
    stem_width=32,
    block_class=ResBottleneckBlock,
    depth=23,
    w_a=38.65,
    w_0=96,
    w_m=2.43,
    group_width=40,
    freeze_at=2,
    norm="FrozenBN",
    out_features=["s2", "s3", "s4"],  # strides 8, 16, 32
)
model.backbone.in_features = "${.bottom_up.out_features}"
# The weights of pycls are for blue, green, red.
model.input_format = "BGR"
model.pixel_mean = [103.53, 116.28, 123.675]
model.pixel_std = [57.375, 57.12, 58.395]

optimizer.weight_decay = 5e-5

train.cudnn_benchmark = True
train.init_checkpoint = (
    "https://dl.fbaipublicfiles.com/pycls/dds_baselines/160906383/RegNetX-4.0GF_dds_8gpu.pyth"
)
