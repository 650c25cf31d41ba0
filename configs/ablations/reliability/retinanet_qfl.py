"""RetinaNet with QFL (Table 1b) on the network and the budget of gflv2.py."""

from gfocal.detectors.retinanet import QFLRetinaNet

from ...common.models.retinanet import model
from .gflv2 import data, dataloader, lr_multiplier, optimizer, train
from .gflv2 import model as _gflv2

model._target_ = QFLRetinaNet
model.qfl_beta = 2.0
model.num_classes = "${data.num_classes}"
model.backbone.bottom_up = _gflv2.backbone.bottom_up
model.backbone.out_channels = 64
model.backbone.top_block.in_channels = 256
model.head.conv_dims = [64, 64]
train.output_dir = "./output/reliability_retinanet_qfl"
