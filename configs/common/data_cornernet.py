"""COCO 2017 for CornerNet: windows of 511 x 511 pixels, 50 a batch. A test has each image in its
own size, in the middle of one of the mean colour.

``dataloader.size`` is the side of a window. The first code of
CornerNet changes colours in another way, and fills with black.
"""

from gfocal.data.pipelines import cornernet_augmentations

from .data import dataloader

dataloader.size = 511  # pixels

for _name in ("train", "test"):
    dataloader[_name].mapper.augmentations = cornernet_augmentations(
        _name == "train",
        mean="${model.pixel_mean}",
        image_format="${model.input_format}",
        size="${dataloader.size}",
    )
dataloader.train.total_batch_size = 50
dataloader.train.aspect_ratio_grouping = False
