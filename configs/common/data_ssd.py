"""COCO 2017 for SSD: 512 x 512 pixels without keeping the ratio, 64 images a batch.

For SSD300: ``data = dict(size=300)`` in a config, or ``+data.size=300``. Training and test follow.
"""

from gfocal.data.pipelines import ssd_augmentations

from .data import dataloader

for _name in ("train", "test"):
    dataloader[_name].mapper.augmentations = ssd_augmentations(
        _name == "train",
        mean="${model.pixel_mean}",
        image_format="${model.input_format}",
        size="${oc.select:data.size,512}",
    )
dataloader.train.total_batch_size = 64
