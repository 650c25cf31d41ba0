"""Datasets: COCO-format json files, checked, and the generated shapes."""

from .coco import detection_dataset_dicts, register_coco_json
from .coco_evaluation import coco_evaluator, dataset_evaluator
from .coco_files import register_coco_jsons
from .coco_json import coco_num_classes, read_coco_json
from .images import read_image
from .loader import build_train_loader
from .mapper import DetectionMapper
from .shapes import register_shapes

__all__ = [
    "DetectionMapper",
    "build_train_loader",
    "coco_evaluator",
    "coco_num_classes",
    "dataset_evaluator",
    "detection_dataset_dicts",
    "read_coco_json",
    "read_image",
    "register_coco_json",
    "register_coco_jsons",
    "register_shapes",
]
