"""Evaluation on the checked annotations of a COCO json."""

import contextlib
import io

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from pycocotools.coco import COCO

from .coco import CocoLoader, check_dataset_files
from .coco_json import CocoJson

__all__ = ["coco_evaluator"]


def coco_evaluator(dataset_name: str, *, output_dir: str | None = None) -> COCOEvaluator:
    """Builds Detectron2's COCOEvaluator, for Detectron2 with and without its compiled ops.

    A dataset of :func:`register_coco_json` is evaluated on its checked annotations. pycocotools
    needs that too: it ignores a box with the annotation id 0, and stops at an annotation without
    "area".

    Args:
        dataset_name: a registered dataset.
        output_dir: a folder for the predictions, as json; by default they are not written.

    Raises:
        FileNotFoundError: a file of the dataset is not there.
        ValueError: no such dataset.
    """
    check_dataset_files([dataset_name])
    metadata = MetadataCatalog.get(dataset_name)
    has_json = hasattr(metadata, "json_file")
    try:
        evaluator = COCOEvaluator(
            dataset_name, output_dir=output_dir, use_fast_impl=_has_fast_eval()
        )
    finally:
        if not has_json:  # Detectron2 has named one in output_dir, which need not stay there
            vars(metadata).pop("json_file", None)
    loader = DatasetCatalog[dataset_name]
    if isinstance(loader, CocoLoader):
        evaluator._coco_api = _ground_truth(loader.read())
    return evaluator


def _ground_truth(data: CocoJson) -> COCO:
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": data.images,
        "categories": [
            {"id": i, "name": name} for i, name in zip(data.category_ids, data.category_names)
        ],
    }
    if data.has_annotations:
        coco.dataset["annotations"] = [
            {**annotation, "id": number} for number, annotation in enumerate(data.annotations, 1)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _has_fast_eval() -> bool:
    """Whether Detectron2 has its compiled evaluation."""
    try:
        from detectron2 import _C
    except ImportError:
        return False
    return hasattr(_C, "COCOevalEvaluateImages")
