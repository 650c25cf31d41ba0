"""Datasets: COCO-format json files, checked, and the generated shapes."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names, names_of

if TYPE_CHECKING:  # what the table below says
    from .coco import detection_dataset_dicts as detection_dataset_dicts
    from .coco import register_coco_json as register_coco_json
    from .coco_evaluation import coco_evaluator as coco_evaluator
    from .coco_evaluation import dataset_evaluator as dataset_evaluator
    from .coco_files import register_coco_jsons as register_coco_jsons
    from .coco_json import coco_num_classes as coco_num_classes
    from .coco_json import read_coco_json as read_coco_json
    from .copy_paste import CopyPaste as CopyPaste
    from .images import read_image as read_image
    from .loader import build_train_loader as build_train_loader
    from .mapper import DetectionMapper as DetectionMapper
    from .mosaic import Mosaic as Mosaic
    from .samplers import RepeatFactors as RepeatFactors
    from .shapes import register_shapes as register_shapes

_LAZY = names_of(
    {
        ".coco": "detection_dataset_dicts register_coco_json",
        ".coco_evaluation": "coco_evaluator dataset_evaluator",
        ".coco_files": "register_coco_jsons",
        ".coco_json": "coco_num_classes read_coco_json",
        ".copy_paste": "CopyPaste",
        ".images": "read_image",
        ".loader": "build_train_loader",
        ".mapper": "DetectionMapper",
        ".mosaic": "Mosaic",
        ".samplers": "RepeatFactors",
        ".shapes": "register_shapes",
    }
)
__all__ = list(_LAZY)
__getattr__, __dir__ = lazy_names(__name__, _LAZY)
