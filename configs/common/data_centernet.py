"""COCO 2017 for CenterNet: windows of 512 x 512 pixels, 128 a batch. A test has each image in its
own size, in the middle of a black one.

``dataloader.size`` is the side of a window.
"""

from gfocal.data.pipelines import centernet_augmentations

from .data import dataloader

dataloader.size = 512  # pixels

for _name in ("train", "test"):
    dataloader[_name].mapper.augmentations = centernet_augmentations(
        _name == "train",
        image_format="${model.input_format}",
        size="${dataloader.size}",
    )
dataloader.train.total_batch_size = 128
