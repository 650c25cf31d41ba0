"""The evaluator that belongs to a dataset, on its checked annotations."""

import contextlib
import inspect
import io
import logging
import os
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
)
from pycocotools.coco import COCO

from .coco import CocoLoader, check_dataset_files, checked_dicts
from .coco_json import CocoJson
from .coco_limit import STANDARD_LIMIT, LimitedCOCOEvaluator, WithStds

__all__ = [
    "CocoTruth",
    "coco_evaluator",
    "coco_truth",
    "dataset_evaluator",
    "follow_limit",
    "known_metrics",
]

_LVIS_LIMIT = 300  # detections an image that count, by LVIS' own rules


def dataset_evaluator(
    dataset_name: str,
    *,
    output_dir: str | None = None,
    max_detections: int | None = None,
    tasks: Sequence[str] | None = None,
) -> DatasetEvaluator:
    """Builds the evaluator that a dataset's ``evaluator_type`` names, as Detectron2's train_net.py
    does: "coco" (also without a type), "lvis" or "pascal_voc". It is Detectron2's own.

    COCO's evaluation uses the checked annotations of a dataset of :func:`register_coco_json`.
    pycocotools needs that too: it ignores a box with the annotation id 0, and stops at an
    annotation without "area". A dataset without json is converted anew for each evaluator.

    Args:
        dataset_name: a registered dataset.
        output_dir: a folder for the predictions, as json; by default they are not written.
        max_detections: the model's limit of detections an image. COCO's metrics then count that
            many if it is more than 100. By default the trainer tells the limit, see
            :func:`follow_limit`.
        tasks: "bbox", "segm" or both, for a dataset in COCO's format. By default what the
            detections have.

    Raises:
        FileNotFoundError: a file of the dataset is not there.
        ModuleNotFoundError: the type needs a package that is not installed.
        ValueError: no such dataset, a type that boxes alone cannot be evaluated for, other tasks
            than these, or tasks of a dataset of another type.
    """
    if tasks is not None and not {*tasks} <= {"bbox", "segm"}:
        raise ValueError(f'tasks are {[*tasks]}; expected "bbox", "segm" or both')
    check_dataset_files([dataset_name])
    metadata = MetadataCatalog.get(dataset_name)
    kind = _evaluator_type(dataset_name)
    if tasks is not None and kind != "coco":
        raise ValueError(f"dataset {dataset_name!r} has the evaluator_type {kind!r}, and no tasks")
    evaluator: DatasetEvaluator
    if kind == "coco":
        evaluator = _coco(dataset_name, output_dir, tasks)
        evaluator.max_detections = max_detections
    elif kind == "lvis":
        evaluator = _lvis(dataset_name, output_dir, max_detections)
    elif kind == "pascal_voc":
        missing = [x for x in ("dirname", "year", "split") if x not in vars(metadata)]
        if missing:
            raise ValueError(
                f"dataset {dataset_name!r} has the evaluator_type 'pascal_voc', but its metadata "
                f"no {', '.join(missing)}; expected those of Detectron2's register_pascal_voc"
            )
        evaluator = PascalVOCDetectionEvaluator(dataset_name)
    else:
        raise ValueError(
            f"dataset {dataset_name!r} has the evaluator_type {kind!r}; boxes are evaluated by "
            "coco, lvis or pascal_voc (MetadataCatalog.get(name).evaluator_type), or by an "
            "evaluator of your own: dataloader.evaluator, or Trainer.build_evaluator"
        )
    return evaluator


class CocoTruth(NamedTuple):
    """The annotations of a dataset, as COCO's evaluation compares detections with them.

    Attributes:
        annotations: {image id: its annotations, in COCO's format with "area" and "iscrowd"}, of all
            images.
        classes: {category id: class index}.
        class_names: of the K classes.
    """

    annotations: dict[Any, list[dict[str, Any]]]
    classes: dict[int, int]
    class_names: list[str]


def coco_truth(dataset_name: str) -> CocoTruth:
    """Reads the annotations that :func:`dataset_evaluator` evaluates with, checked as there.

    Args:
        dataset_name: a registered dataset whose evaluator_type is "coco", or that has none.

    Raises:
        FileNotFoundError: a file of the dataset is not there.
        ValueError: no such dataset, one of another type, or one without annotations.
    """
    check_dataset_files([dataset_name])
    if (kind := _evaluator_type(dataset_name)) != "coco":
        raise ValueError(
            f"dataset {dataset_name!r} has the evaluator_type {kind!r}; expected 'coco', whose "
            "annotations have every object of every class"
        )
    evaluator = _coco(dataset_name, None)
    if not evaluator._do_evaluation:
        raise ValueError(f"dataset {dataset_name!r} has no annotations to compare detections with")
    truth = evaluator._coco_api
    ids = sorted(truth.getCatIds())
    metadata = MetadataCatalog.get(dataset_name)
    classes = metadata.get("thing_dataset_id_to_contiguous_id", None) or {i: i for i in ids}
    names = metadata.get("thing_classes", None) or [truth.cats[i]["name"] for i in ids]
    return CocoTruth(
        {i: [{"iscrowd": 0, **x} for x in truth.imgToAnns.get(i, [])] for i in truth.getImgIds()},
        dict(classes),
        list(names),
    )


def _evaluator_type(dataset_name: str) -> str:
    return MetadataCatalog.get(dataset_name).get("evaluator_type", None) or "coco"


def coco_evaluator(dataset_name: str, *, output_dir: str | None = None) -> DatasetEvaluator:
    """:func:`dataset_evaluator`, by the name that configs of earlier versions have."""
    return dataset_evaluator(dataset_name, output_dir=output_dir)


def follow_limit(evaluator: Any, model: Any) -> None:
    """Tells a COCO evaluator of :func:`dataset_evaluator` how many detections an image the model
    gives at most, unless it was told. Warns of Detectron2's own evaluators, which count fewer."""
    for part in getattr(evaluator, "_evaluators", ()):  # of a DatasetEvaluators
        follow_limit(part, model)
    inner = getattr(model, "model", model)  # of test-time augmentation
    limit = getattr(model, "max_detections_per_image", None)
    if limit is None:
        limit = getattr(inner, "max_detections_per_image", None)
    if not isinstance(limit, int):
        return
    if isinstance(evaluator, LimitedCOCOEvaluator):
        if evaluator.max_detections is None:
            evaluator.max_detections = limit
    elif isinstance(evaluator, (COCOEvaluator, LVISEvaluator)):
        standard = STANDARD_LIMIT if isinstance(evaluator, COCOEvaluator) else _LVIS_LIMIT
        counted = getattr(evaluator, "_max_dets_per_image", None) or standard
        counted = counted[-1] if isinstance(counted, list) else counted
        if limit > counted:
            logging.getLogger(__name__).warning(
                f"The model gives up to {limit} detections an image, and {counted} of them count "
                f"in {type(evaluator).__name__}. gfocal.data.dataset_evaluator has max_detections"
            )


def known_metrics(evaluator: Any) -> set[str] | None:
    """The names of the metrics that an evaluator will give; None if they are not known. One of
    another kind tells them by an attribute ``known_metrics``."""
    if isinstance(evaluator, DatasetEvaluators):
        parts = [known_metrics(x) for x in evaluator._evaluators]
        return None if None in parts else set().union(*(x for x in parts if x is not None))
    if hasattr(evaluator, "known_metrics"):
        return set(evaluator.known_metrics)
    if isinstance(evaluator, PascalVOCDetectionEvaluator):
        return {"bbox/AP", "bbox/AP50", "bbox/AP75"}
    if isinstance(evaluator, LVISEvaluator):
        return {f"bbox/AP{x}" for x in ("", "50", "75", "s", "m", "l", "r", "c", "f")}
    if not isinstance(evaluator, LimitedCOCOEvaluator):
        return None
    if not evaluator._do_evaluation:  # a json without annotations
        return set()
    names = evaluator._metadata.get("thing_classes", None) or ()
    classes = [f"-{name}" for name in names] if len(names) > 1 else []
    tasks = evaluator._tasks or ("bbox",)
    return {f"{y}/AP{x}" for x in ("", "50", "75", "s", "m", "l", *classes) for y in tasks}


def _coco(
    dataset_name: str, output_dir: str | None, tasks: Sequence[str] | None = None
) -> LimitedCOCOEvaluator:
    metadata = MetadataCatalog.get(dataset_name)
    with contextlib.ExitStack() as stack:
        if not hasattr(metadata, "json_file"):
            # Detectron2 would keep the conversion in output_dir, and find it there when the
            # dataset is another.
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            metadata.json_file = os.path.join(folder, "converted.json")
            stack.callback(vars(metadata).pop, "json_file", None)
            checked_dicts(dataset_name, check=False)  # what Detectron2's conversion does not name
            convert_to_coco_json(dataset_name, metadata.json_file)
        evaluator = LimitedCOCOEvaluator(
            dataset_name,
            tasks=None if tasks is None else tuple(tasks),
            output_dir=output_dir,
            use_fast_impl=_has_fast_eval(),
        )
    loader = DatasetCatalog[dataset_name]
    if isinstance(loader, CocoLoader):
        evaluator._coco_api = _ground_truth(loader.read(masks="segm" in (tasks or ())))
    elif not hasattr(metadata, "thing_dataset_id_to_contiguous_id"):
        ids = sorted(evaluator._coco_api.getCatIds())
        if ids != list(range(len(ids))):  # classes would be compared with other categories
            raise ValueError(
                f"dataset {dataset_name!r}: its json_file has the category ids {ids[:8]}, and its "
                "metadata no thing_dataset_id_to_contiguous_id; expected that, e.g. "
                f"{{{ids[0]}: 0, ...}}, or ids from 0 on"
            )
    return evaluator


class _LVIS(WithStds, LVISEvaluator):
    """Detectron2's, with lvis 0.5.3 on NumPy from 1.24 on, which has no ``np.float``."""

    def evaluate(self) -> Any:
        if hasattr(np, "float"):
            return super().evaluate()
        vars(np)["float"] = float
        try:
            return super().evaluate()
        finally:
            del vars(np)["float"]


def _lvis(
    dataset_name: str, output_dir: str | None, max_detections: int | None
) -> DatasetEvaluator:
    more = {}
    if (max_detections or 0) > _LVIS_LIMIT:
        if "max_dets_per_image" not in inspect.signature(_LVIS).parameters:
            raise ValueError(
                f"the model gives {max_detections} detections an image, and this Detectron2 "
                f"evaluates LVIS with {_LVIS_LIMIT} at most; a later one can do more"
            )
        more["max_dets_per_image"] = max_detections
    try:
        return _LVIS(dataset_name, output_dir=output_dir, **more)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"dataset {dataset_name!r} has the evaluator_type 'lvis', which needs the package "
            f"{error.name!r}: pip install lvis"
        ) from error


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
