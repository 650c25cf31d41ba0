"""COCO 2017 for SSD: 512 x 512 pixels without keeping the ratio, 64 images a batch.

Training and test follow ``dataloader.size``; SSD300 has 300.
"""

from gfocal.data.pipelines import ssd_augmentations

from .data import dataloader

dataloader.size = 512  # pixels

for _name in ("train", "test"):
    dataloader[_name].mapper.augmentations = ssd_augmentations(
        _name == "train",
        mean="${model.pixel_mean}",
        image_format="${model.input_format}",
        size="${dataloader.size}",
    )
dataloader.train.total_batch_size = 64
