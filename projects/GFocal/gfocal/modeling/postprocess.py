"""From predictions or scores to detections: threshold, per-level top-k, decode, NMS.

Only candidates that survive the top-k are decoded.
"""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from .contracts import PostProcess
from .ranking import Ranked, best_of_predictions, best_of_scores
from .settings import (
    COUNT,
    DETECTOR,
    FLAG,
    IOU,
    PIXELS,
    SCORES,
    UNSET,
    Checked,
    ScoreThresh,
    check_setting,
    for_classes,
)
from .sides import side_distributions, side_stds
from .structures import DenseAnchors, DensePredictions
from .suppression import HardNMS, Suppression
from .uncertainty import Calibration

__all__ = ["Candidates", "NMSPostProcess", "postprocess_of"]

# Detectron2's names of the settings of NMSPostProcess.
_OF_PART = {
    "test_score_thresh": "score_thresh",
    "test_topk_candidates": "topk_candidates",
    "test_clip_margin": "clip_margin",
    "test_nms_thresh": "nms_thresh",
    "max_detections_per_image": "max_detections",
}


class Candidates(NamedTuple):
    """The T candidates of one image, before NMS.

    Attributes:
        boxes: (T, 4) XYXY pixels, clipped to the image.
        scores, classes: (T,).
        location_idxs: (T,) in 0..R-1.
        stds: (T, 4) standard deviations of the sides, pixels; None where nobody asked, or a box
            representation has none.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    location_idxs: Tensor
    stds: Tensor | None = None


class NMSPostProcess(Checked):
    """Score threshold, per-level top-k, decoding, NMS.

    Args:
        score_thresh: candidates are the (location, class) pairs that score above it. A list has a
            threshold for each class. A mapping has some, by index or name, and "default" for the
            others (0.05 if it is not there).
        topk_candidates: at most so many candidates a level, the best.
        nms_thresh: IoU above which the lower-scored box of the same class is dropped; 0.6 if it is
            not given.
        max_detections: at most so many detections an image.
        suppression: another NMS, see suppression.py. It has its own numbers.
        class_names: of all classes, for thresholds by name.
        stds: the detections have `pred_box_stds`, where the box representation has a standard
            deviation; see sides.py.
        distributions: they also have `pred_box_distributions` and `bin_edges`.
        clip_margin: boxes end so many pixels before the right and the lower margin of the image.
        calibration: of scores and standard deviations, see
            :class:`gfocal.modeling.uncertainty.Calibration`. The thresholds are compared with the
            scores before.

    Raises:
        ValueError: a value out of its range, also when it is set later; or a ``nms_thresh`` beside
            a ``suppression``.
    """

    SETTINGS = MappingProxyType(
        {
            "score_thresh": SCORES,
            "topk_candidates": COUNT,
            "max_detections": COUNT,
            "clip_margin": PIXELS,
            "stds": FLAG,
            "distributions": FLAG,
        }
    )

    suppression: Suppression

    def __init__(
        self,
        *,
        score_thresh: ScoreThresh = 0.05,
        topk_candidates: int = 1000,
        nms_thresh: float = UNSET,
        max_detections: int = 100,
        suppression: Suppression = UNSET,
        class_names: Sequence[str] | None = None,
        stds: bool = True,
        distributions: bool = False,
        clip_margin: float = 0.0,
        calibration: Calibration | None = None,
    ):
        if suppression is UNSET:
            suppression = HardNMS()
            if nms_thresh is not UNSET:
                check_setting("nms_thresh", nms_thresh, IOU)
                suppression.iou_thresh = nms_thresh
        elif nms_thresh is not UNSET:
            raise ValueError(
                f"got a suppression {suppression!r} and also nms_thresh {nms_thresh!r}, which it "
                "does not read; set the numbers on the suppression"
            )
        self.class_names = class_names
        self.score_thresh = score_thresh
        self.topk_candidates = topk_candidates
        self.max_detections = max_detections
        self.suppression = suppression
        self.stds, self.distributions = stds, distributions
        self.clip_margin = clip_margin
        self.calibration = calibration

    @property
    def nms_thresh(self) -> float:
        """The threshold of the suppression, if it has one."""
        return self.suppression.iou_thresh  # type: ignore[attr-defined]  # soft-NMS may have none

    @nms_thresh.setter
    def nms_thresh(self, value: float) -> None:
        check_setting("nms_thresh", value, IOU)
        _ = self.nms_thresh  # what the suppression does not have it would not read
        self.suppression.iou_thresh = value  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, suppression={self.suppression!r})"

    def thresholds(self, num_classes: int) -> float | tuple[float, ...]:
        """The score threshold of all classes, or K.

        Raises:
            ValueError: ``score_thresh`` does not fit K classes or their names.
        """
        return for_classes(self.score_thresh, num_classes, self.class_names)

    def __call__(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Detections of each image, best first.

        Args:
            anchors, predictions: see structures.py.
            image_sizes: of the first images of the batch, (height, width) without padding, pixels.

        Returns:
            ``Instances`` for each of these, with pred_boxes (XYXY pixels, clipped to the image),
            scores, pred_classes and anchor_idxs (each detection's location in 0..R-1). Those of
            sides.py come with ``stds`` and ``distributions``.

        Raises:
            TypeError: ``distributions`` of a box representation that has none.
        """
        candidates = self.candidates(anchors, predictions, image_sizes)
        results = [self.suppress(*x) for x in zip(image_sizes, candidates)]
        self.set_sides(results, anchors, predictions)
        return results

    def set_sides(
        self, results: list[Instances], anchors: DenseAnchors, predictions: DensePredictions
    ) -> None:
        """Sets the fields of sides.py that are asked for."""
        # Image after image: so few numbers are summed by one thread, and their last bit depends
        # neither on the number of threads nor on the other images.
        for index, result in enumerate(results):
            detections = (anchors, predictions, index, result.anchor_idxs)
            if self.stds:
                self.set_stds(result, side_stds(*detections))
            if self.distributions:
                found = side_distributions(*detections)
                result.pred_box_distributions, result.bin_edges = found

    def candidates(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        image_sizes: Sequence[tuple[int, int]],
        *,
        stds: bool = False,
    ) -> list[Candidates]:
        """What is left to NMS, for each image. The arguments are those of a call; ``stds``: the
        candidates have them, where the box representation has."""
        thresholds = self.thresholds(predictions.cls_logits.shape[-1])
        best = best_of_predictions(
            predictions, anchors.level_sizes, thresholds, self.topk_candidates
        )
        places = best.image_idxs, best.location_idxs
        distances = predictions.distances_of(predictions.box_logits[places])
        boxes = anchors.decode(distances, best.location_idxs)
        found = side_stds(anchors, predictions, *places) if stds else None
        return self._per_image(best, boxes, image_sizes, stds=found)

    def of_scores(
        self,
        scores: Tensor,
        level_sizes: Sequence[int],
        decode: Callable[[Tensor, Tensor], Tensor],
        image_sizes: Sequence[tuple[int, int]],
        *,
        clip: bool = True,
    ) -> list[Instances]:
        """Detections of each image, best first, of a detector that has scores in place of
        ``DensePredictions``.

        Args:
            scores, level_sizes, decode, image_sizes, clip: see :meth:`candidates_of_scores`.

        Returns:
            ``Instances`` as those of a call, without the fields of sides.py.
        """
        candidates = self.candidates_of_scores(scores, level_sizes, decode, image_sizes, clip=clip)
        return [self.suppress(*x) for x in zip(image_sizes, candidates)]

    def candidates_of_scores(
        self,
        scores: Tensor,
        level_sizes: Sequence[int],
        decode: Callable[[Tensor, Tensor], Tensor],
        image_sizes: Sequence[tuple[int, int]],
        *,
        clip: bool = True,
    ) -> list[Candidates]:
        """What is left to NMS, for each image.

        Args:
            scores: (N, R, K) in [0, 1]; a score of 0 is no candidate.
            level_sizes: number of locations of each level, R together. Each has its own top-k.
            decode: from images (T,) and locations (T,) to their boxes (T, 4), XYXY pixels.
            image_sizes: of the first images of the batch, (height, width) without padding, pixels.
            clip: the boxes are clipped to their image.
        """
        thresholds = self.thresholds(scores.shape[-1])
        best = best_of_scores(scores, [*level_sizes], thresholds, self.topk_candidates)
        boxes = decode(best.image_idxs, best.location_idxs)
        return self._per_image(best, boxes, image_sizes, clip=clip)

    def _per_image(
        self,
        best: Ranked,
        boxes: Tensor,
        image_sizes: Sequence[tuple[int, int]],
        *,
        stds: Tensor | None = None,
        clip: bool = True,
    ) -> list[Candidates]:
        columns = [boxes, best.scores, best.classes, best.location_idxs]
        columns += [] if stds is None else [stds]
        per_image = (x.split(best.counts) for x in columns)
        ret = []
        for (height, width), image_boxes, *others in zip(image_sizes, *per_image):
            if clip:
                limits: Any = (height - self.clip_margin, width - self.clip_margin)
                image_boxes = clip_boxes_to_image(image_boxes, limits)
            ret.append(Candidates(image_boxes, *others))
        return ret

    def suppress(self, image_size: tuple[int, int], candidates: Candidates) -> Instances:
        """The detections among the candidates of one image, see :meth:`__call__`."""
        boxes, scores, classes, location_idxs, stds = candidates
        keep, scores = self.suppression(boxes, scores, classes, self.max_detections)
        result = Instances(
            image_size,
            pred_boxes=Boxes(boxes[keep]),
            scores=scores if self.calibration is None else self.calibration.score(scores),
            pred_classes=classes[keep],
            anchor_idxs=location_idxs[keep],
        )
        self.set_stds(result, stds if stds is None else stds[keep])
        return result

    def calibrate(self, data: Any, path: str) -> None:
        """Sets the calibration from plain data, see
        :meth:`gfocal.modeling.uncertainty.Calibration.from_plain`."""
        self.calibration = Calibration.from_plain(data, path)

    def set_stds(self, result: Instances, stds: Tensor | None) -> None:
        """Sets `pred_box_stds` of detections, calibrated; None for none."""
        if stds is not None:
            scale = 1.0 if self.calibration is None else self.calibration.std_scale
            result.pred_box_stds = stds if scale == 1 else stds * scale


def postprocess_of(given: PostProcess | None, num_classes: int, **settings: Any) -> PostProcess:
    """The post-processing of a detector.

    Args:
        given: a part with its own settings, or None for an :class:`NMSPostProcess`.
        num_classes: K.
        settings: the detector's arguments, by its names; UNSET where there is none.

    Raises:
        ValueError: a setting is out of its range, or beside a given part.
    """
    settings = {name: value for name, value in settings.items() if value is not UNSET}
    for name, value in settings.items():
        if name in DETECTOR:
            check_setting(name, value, DETECTOR[name])
    if given is not None and settings:
        changed = ", ".join(f"{name} {value!r}" for name, value in settings.items())
        raise ValueError(
            f"got a postprocess {type(given).__name__} and also {changed}, which it does not read; "
            "set it on the postprocess"
        )
    ret = given or NMSPostProcess(**{_OF_PART.get(name, name): x for name, x in settings.items()})
    if isinstance(ret, NMSPostProcess):
        ret.thresholds(num_classes)  # refuses those of other classes
    return ret
