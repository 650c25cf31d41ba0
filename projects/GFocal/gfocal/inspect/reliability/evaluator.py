"""The evaluator: beside COCO's, with the same detections."""

import contextlib
import json
import logging
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from PIL import Image

from ...data.coco_evaluation import CocoTruth, coco_truth
from ..distributions import with_distributions
from .matching import Matched, Objects, Sides, concatenated, match
from .measuring import Evidence, curves_of, measure, metric_names
from .picture import draw_reliability

__all__ = ["DetectionReliabilityEvaluator"]


class DetectionReliabilityEvaluator(DatasetEvaluator):
    """Measures whether scores and standard deviations of detections mean what they say.

    Scores of all detectors are measured. Where detections have `pred_box_stds`, so are their sides;
    where they have `pred_box_distributions` too, also these, see :meth:`observing`. All metrics are
    in docs/uncertainty.md; a metric that nothing was measured for is nan.

    Args:
        dataset_name: a registered dataset whose evaluator_type is "coco", or that has none.
        output_dir: a folder for reliability.json, which has the curves too, and reliability.png; by
            default they are not written.
        iou_thresh: IoU from which on a detection is a true positive, for all metrics but LaECE and
            LaACE, whose threshold is 0.
        distributed: collect the detections of all processes, as COCOEvaluator does.

    Raises:
        FileNotFoundError: a file of the dataset is not there.
        ValueError: no such dataset, one of another type, or one without annotations; an
            ``iou_thresh`` that is none.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        iou_thresh: float = 0.5,
        distributed: bool = True,
    ):
        if isinstance(iou_thresh, bool) or not 0 < iou_thresh < 1:
            raise ValueError(f"iou_thresh is {iou_thresh!r}; expected a number between 0 and 1")
        self.dataset_name, self.output_dir = dataset_name, output_dir
        self.iou_thresh, self.distributed = iou_thresh, distributed
        self._truth = coco_truth(dataset_name)
        self._objects = {key: _objects(key, self._truth) for key in self._truth.annotations}
        self.reset()

    @property
    def known_metrics(self) -> set[str]:
        """The metrics that an evaluation gives, if the detector has standard deviations and
        distributions."""
        return {f"reliability/{name}" for name in metric_names(self._truth.class_names)}

    @contextlib.contextmanager
    def observing(self, model: Any) -> Iterator[None]:
        """Inside it, the model's detections have their distributions, if it has any. All else of
        them is the same.

        Args:
            model: what is evaluated.
        """
        representation = getattr(model, "box_representation", None)
        has_switch = hasattr(getattr(model, "postprocess", None), "distributions")
        with contextlib.ExitStack() as stack:
            if has_switch and hasattr(representation, "probabilities"):
                stack.enter_context(with_distributions(model))
            yield

    def reset(self) -> None:
        self._found: dict[Any, tuple[Matched, Matched, Sides]] = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """
        Args:
            inputs: of the model; each has "image_id".
            outputs: of the model: {"instances": Instances}, pixels of the annotated image.

        Raises:
            ValueError: an image or a class that the dataset does not have.
        """
        for image, output in zip(inputs, outputs):
            image_id = image["image_id"]
            if image_id not in self._objects:
                raise ValueError(
                    f"image {image_id!r} was evaluated; dataset {self.dataset_name!r} has no such "
                    "image"
                )
            self._found[image_id] = self._matched(output["instances"].to("cpu"), image_id)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """
        Returns:
            {"reliability": {metric: value}} on the main process, else {}.
        """
        found = self._found
        if self.distributed:
            comm.synchronize()
            gathered = comm.gather(found, dst=0)
            if not comm.is_main_process():
                return {}
            found = {key: x for part in gathered for key, x in part.items()}
        logger = logging.getLogger(__name__)
        if not found:
            logger.warning("No image was evaluated, so there is no reliability")
            return {}
        if missing := len(self._objects) - len(found):
            logger.warning(
                f"{missing} images of {self.dataset_name!r} were not evaluated: their objects "
                "count as not found"
            )
        evidence = self._evidence(found)
        if evidence.sides.stds is None:
            logger.info(
                "The detections have no pred_box_stds (a Dirac delta has none, nor have detectors "
                "without box distributions): reliability is that of scores alone"
            )
        flat, parts = measure(evidence, self._truth.class_names)
        logger.info("Reliability:\n" + "\n".join(f"{k:24} {v:.4f}" for k, v in flat.items()))
        if self.output_dir:
            self._write(flat, parts, curves_of(evidence))
        return {"reliability": flat}

    @property
    def image_ids(self) -> list[Any]:
        """Of the images that were evaluated by this process, in the dataset's order."""
        return [key for key in self._objects if key in self._found]

    def evidence(self, image_ids: Iterable[Any]) -> Evidence:
        """What was found on some of :attr:`image_ids`, by this process.

        Raises:
            ValueError: none of them, or an image that was not evaluated.
        """
        wanted = set(image_ids)
        if not wanted or wanted - self._found.keys():
            raise ValueError(
                f"evidence of {len(wanted)} images; expected some of the {len(self._found)} that "
                "were evaluated"
            )
        return self._evidence({key: self._found[key] for key in wanted}, wanted)

    def _matched(self, instances: Instances, image_id: Any) -> tuple[Matched, Matched, Sides]:
        boxes = instances.pred_boxes.tensor.double().numpy()
        scores = instances.scores.double().numpy()
        classes = instances.pred_classes.numpy()
        number = len(self._truth.class_names)
        if len(classes) and classes.max() >= number:
            raise ValueError(
                f"image {image_id!r}: a detection has the class {classes.max()}; dataset "
                f"{self.dataset_name!r} has {number} classes"
            )
        truth = self._objects[image_id]
        loose, strict = (
            match(boxes, scores, classes, truth, threshold) for threshold in (0.0, self.iou_thresh)
        )
        rows = strict.kept[strict.is_true]
        wanted = truth.boxes[strict.objects[strict.is_true]]
        sides: dict[str, np.ndarray] = {"errors": boxes[rows] - wanted}
        if instances.has("pred_box_stds"):
            sides["stds"] = instances.pred_box_stds.double().numpy()[rows]
        if instances.has("pred_box_distributions"):
            sides["probabilities"] = instances.pred_box_distributions.numpy()[rows]
            sides["bin_places"] = instances.bin_edges.double().numpy()[rows] - wanted[..., None]
        return loose, strict, Sides(**sides)

    def _evidence(
        self,
        found: Mapping[Any, tuple[Matched, Matched, Sides]],
        image_ids: Collection[Any] | None = None,
    ) -> Evidence:
        """Of the objects of some images, by default all."""
        ids = [key for key in self._objects if key in found]  # one order in any number of processes
        loose, strict, sides = zip(*(found[key] for key in ids))
        objects = [x for key, x in self._objects.items() if image_ids is None or key in image_ids]
        real = [~x.crowds for x in objects]
        return Evidence(
            concatenated(loose),
            concatenated(strict),
            Sides._make(
                None if any(x is None for x in y) else np.concatenate(y) for y in zip(*sides)
            ),
            np.concatenate([x.classes[keep] for x, keep in zip(objects, real)]),
            np.concatenate([x.areas[keep] for x, keep in zip(objects, real)]),
            self.iou_thresh,
        )

    def _write(
        self, flat: Mapping[str, float], parts: Mapping[str, Any], curves: Mapping[str, Any]
    ) -> None:
        assert self.output_dir is not None
        PathManager.mkdirs(self.output_dir)
        report = {
            "dataset": self.dataset_name,
            "iou_thresh": self.iou_thresh,
            "metrics": flat,
            **parts,
            "curves": curves,
        }
        with PathManager.open(os.path.join(self.output_dir, "reliability.json"), "w") as file:
            json.dump(_plain(report), file, allow_nan=False)
        picture = draw_reliability(flat, curves, title=self.dataset_name)
        with PathManager.open(os.path.join(self.output_dir, "reliability.png"), "wb") as file:
            Image.fromarray(picture).save(file, format="PNG")


def _objects(image_id: Any, truth: CocoTruth) -> Objects:
    annotations = truth.annotations[image_id]
    boxes = np.array([x["bbox"] for x in annotations], float).reshape(-1, 4)
    return Objects(
        np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        np.array([truth.classes[x["category_id"]] for x in annotations], int),
        np.array([x["iscrowd"] for x in annotations], bool),
        np.array([x["area"] for x in annotations], float),
    )


def _plain(value: Any) -> Any:
    """For json: lists in place of arrays, None in place of nan."""
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
