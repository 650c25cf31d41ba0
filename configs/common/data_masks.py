"""COCO 2017 as in data.py, with the masks of objects."""

from .data import dataloader

for _loader in (dataloader.train, dataloader.test):
    _loader.mapper.use_instance_mask = True
    _loader.mapper.instance_mask_format = "polygon"  # or "bitmask", for run lengths
dataloader.evaluator.tasks = ["bbox", "segm"]
