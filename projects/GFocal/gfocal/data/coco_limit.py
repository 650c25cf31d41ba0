"""COCO's metrics with another limit of detections an image than 100.

COCO counts at most 100 detections an image. On images with more objects, even a perfect detector
then misses some. pycocotools takes other limits for its matches, but its summary of AP looks for
100.
"""

import itertools
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .masks import usable_mask

__all__ = ["STANDARD_LIMIT", "LimitedCOCOEvaluator", "WithStds", "evaluate_results"]

STANDARD_LIMIT = 100


class WithStds(DatasetEvaluator):
    """Results with "bbox_std", where detections have standard deviations: of the left, top, right
    and bottom side, pixels. To be mixed into an evaluator of Detectron2 that keeps results in
    COCO's format, an entry an image."""

    _predictions: list[dict[str, Any]]

    def process(self, inputs: Any, outputs: Any) -> None:
        for image, output in zip(inputs, outputs):
            start = len(self._predictions)
            super().process([image], [output])
            instances = output.get("instances")
            if instances is None or not instances.has("pred_box_stds"):
                continue
            for prediction in self._predictions[start:]:  # one, in the order of the detections
                for result, stds in zip(prediction["instances"], instances.pred_box_stds.tolist()):
                    result["bbox_std"] = [round(x, 4) for x in stds]


class LimitedCOCOEvaluator(WithStds, COCOEvaluator):
    """Detectron2's COCOEvaluator, whose limit of detections an image is at least that of the model.

    Attributes:
        max_detections: the model's limit; None: it is not known, and COCO's own 100 counts.
    """

    max_detections: int | None = None

    @property
    def limit(self) -> int:
        """How many detections an image count."""
        return max(self.max_detections or 0, STANDARD_LIMIT)

    def _eval_predictions(self, predictions: Sequence[Any], img_ids: Any = None) -> None:
        tasks = self._tasks or self._tasks_from_predictions(_results_of(predictions))
        limit = self.limit if {*tasks} <= {"bbox", "segm"} else STANDARD_LIMIT
        self._prepare_masks(tasks, _results_of(predictions))
        self._logger.info(f"At most {limit} detections an image count (COCO's maxDets)")
        if limit == STANDARD_LIMIT:
            super()._eval_predictions(predictions, img_ids)
            return
        results = _results_of(predictions)
        ids = getattr(self._metadata, "thing_dataset_id_to_contiguous_id", None)
        if ids is not None:
            of_class = {index: key for key, index in ids.items()}
            results = [{**x, "category_id": of_class[x["category_id"]]} for x in results]
        if self._output_dir:
            with open(os.path.join(self._output_dir, "coco_instances_results.json"), "w") as file:
                json.dump(results, file)
        if not self._do_evaluation:
            self._logger.info("Annotations are not available for evaluation.")
            return
        for task in sorted(tasks):
            evaluated = evaluate_results(self._coco_api, results, self.limit, img_ids, task)
            self._results[task] = self._derive_coco_results(
                evaluated, task, class_names=self._metadata.get("thing_classes")
            )

    def _prepare_masks(self, tasks: Sequence[str], results: Sequence[dict[str, Any]]) -> None:
        """Leaves annotations with masks that pycocotools can read. A crowd without one is its box.

        Raises:
            ValueError: masks are to be evaluated, and detections or annotations have none.
        """
        if "segm" not in tasks or not self._do_evaluation:
            return
        if any("segmentation" not in x for x in results):
            raise ValueError(
                "the evaluator's tasks are bbox and segm, and the detections have no masks; "
                'expected a detector with masks, or tasks=["bbox"] (MODEL.MASK_ON False)'
            )
        missing = []
        annotations = self._coco_api.dataset["annotations"]
        for annotation in annotations:
            image = self._coco_api.imgs[annotation["image_id"]]
            mask = usable_mask(annotation.get("segmentation"), image["height"], image["width"])
            if mask is None and annotation.get("iscrowd"):
                x, y, w, h = annotation["bbox"]
                mask = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotation["segmentation"] = mask
            if mask is None:
                missing.append(annotation)
        if missing:
            raise ValueError(
                f"the detections have masks, and {len(missing)} of {len(annotations)} annotations "
                f"of the test dataset have none, e.g. one of image {missing[0]['image_id']!r}; "
                'expected "segmentation" in each, or an evaluator with tasks=["bbox"]'
            )


def evaluate_results(
    truth: COCO,
    results: list[dict[str, Any]],
    limit: int,
    img_ids: Any = None,
    task: str = "bbox",
) -> COCOeval | None:
    """COCO's evaluation of boxes or masks.

    Args:
        truth: with annotations.
        results: in COCO's format.
        limit: at most so many detections an image and class count.
        img_ids: ids of images; by default all.
        task: "bbox" or "segm".

    Returns:
        pycocotools' object with ``eval`` and the twelve ``stats``; None without results, as
        pycocotools can't read these.
    """
    if not results:
        return None
    if task == "segm":  # else small, medium and large are those of the boxes
        results = [{key: x for key, x in result.items() if key != "bbox"} for result in results]
    evaluated = COCOeval(truth, truth.loadRes(results), task)
    evaluated.params.maxDets = [1, 10, limit]
    if img_ids is not None:
        evaluated.params.imgIds = img_ids
    evaluated.evaluate()
    evaluated.accumulate()
    evaluated.stats = _summary(evaluated)
    return evaluated


def _summary(evaluated: COCOeval) -> np.ndarray:
    """The twelve numbers of COCO: AP, AP50, AP75, APs, APm, APl with the last limit; AR with each
    limit, and ARs, ARm, ARl with the last."""
    # (thresholds, recalls, classes, areas, limits) and (thresholds, classes, areas, limits).
    precision, recall = evaluated.eval["precision"], evaluated.eval["recall"]
    thresholds = np.asarray(evaluated.params.iouThrs)

    def mean(values: np.ndarray) -> float:
        values = values[values > -1]  # -1: a class without a box of that area
        return float(values.mean()) if len(values) else -1.0

    at = [np.isclose(thresholds, x) for x in (0.5, 0.75)]
    return np.array(
        [
            mean(precision[..., 0, -1]),
            *(mean(precision[x][..., 0, -1]) for x in at),
            *(mean(precision[..., area, -1]) for area in (1, 2, 3)),
            *(mean(recall[..., 0, limit]) for limit in (0, 1, 2)),
            *(mean(recall[..., area, -1]) for area in (1, 2, 3)),
        ]
    )


def _results_of(predictions: Sequence[Any]) -> list[dict[str, Any]]:
    return list(itertools.chain.from_iterable(x["instances"] for x in predictions))
