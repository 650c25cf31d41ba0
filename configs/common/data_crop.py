"""COCO 2017 as Detectron2 trains MViTv2: the shorter side is one of 480..800, the longer at most
1333. Half of the images are cropped before."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .data import dataloader

dataloader.train.mapper.augmentations = [
    L(T.RandomApply)(
        tfm_or_aug=L(T.AugmentationList)(
            augs=[
                L(T.ResizeShortestEdge)(short_edge_length=[400, 500, 600], sample_style="choice"),
                L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
            ]
        ),
        prob=0.5,
    ),
    L(T.ResizeShortestEdge)(
        short_edge_length=list(range(480, 801, 32)), sample_style="choice", max_size=1333
    ),
    L(T.RandomFlip)(horizontal=True),
]
