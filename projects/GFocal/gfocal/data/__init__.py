"""Datasets: COCO-format json files, checked, and the generated shapes."""

from .coco import (
    coco_evaluator,
    coco_num_classes,
    detection_dataset_dicts,
    read_coco_json,
    register_coco_json,
)
from .shapes import register_shapes

__all__ = [
    "coco_evaluator",
    "coco_num_classes",
    "detection_dataset_dicts",
    "read_coco_json",
    "register_coco_json",
    "register_shapes",
]
