"""Faster R-CNN with GFL's proposals, small, on the generated shapes: budget of shapes_gflv2.py."""

from ..common.models.gfl_faster_rcnn import model
from .shapes_gflv2 import dataloader, lr_multiplier, optimizer, train
from .shapes_gflv2 import model as _small

model.backbone = _small.backbone
model.proposal_generator.head.conv_dims = [64, 64]
model.roi_heads.num_classes = 6
model.roi_heads.batch_size_per_image = 64
model.roi_heads.box_head.fc_dims = [128]
model.roi_heads.box_predictor.input_shape.channels = 128
train.output_dir = "./output/shapes_gfl_faster_rcnn"
