"""COCO 2017 with large-scale jitter, as Detectron2 trains ViTDet: an image is scaled by 0.1 to 2
times the size that fits into 1024 x 1024 px, and cropped to that."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .data import dataloader

image_size = 1024  # pixels; a square_pad of the backbone must be as large

dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.ResizeScale)(
        min_scale=0.1, max_scale=2.0, target_height=image_size, target_width=image_size
    ),
    L(T.FixedSizeCrop)(crop_size=[image_size, image_size], pad=False),
]
dataloader.train.total_batch_size = 64
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=image_size, max_size=image_size)
]
