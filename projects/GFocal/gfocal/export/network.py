"""A detector as a function from tensors to tensors, for tracing and exporting.

No Python number in it depends on what is on the images, and sizes are read from the input each
time. So a graph made from one batch is right for every other. The mathematics is that of
`modeling/`: the same scores, boxes and distributions. Threshold, top-k and NMS are those of
:class:`gfocal.modeling.postprocess.NMSPostProcess`, on tensors of fixed size.

N images, R locations, K classes, T candidates (topk_candidates a level), D detections of all images
together. Boxes are XYXY pixels of the input.
"""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from detectron2.layers import DeformConv, ModulatedDeformConv
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from torch import Tensor, nn
from torch.nn import functional as F

from ..detectors.gfl import GFL
from ..modeling.boxes import distances_to_boxes
from ..modeling.postprocess import NMSPostProcess
from ..modeling.quality import DistributionGuidedQualityPredictor
from ..modeling.structures import DensePredictions
from ..modeling.suppression import HardNMS
from .card import LEVELS
from .nms import KeptByNMS, kept_by_nms
from .optimize import fold_norms

__all__ = ["TensorNetwork"]


class TensorNetwork(nn.Module):
    """A GFL detector from tensors to tensors.

    Args:
        detector: with its weights. It is copied, with batch norms folded into the convolutions.
        level: "raw": logits of each level; "decoded": boxes and scores of all locations; "full":
            detections.
        preprocessing: "inside": images have values 0..255, of any size, and are normalized and
            padded here. "outside": they are normalized and padded already.
        stds: whether the standard deviation of each side is an output. By default at level "full",
            where the detections of the detector have it: there it costs nothing.
        dtype: of backbone and head. All else is in float32: softmax, expectation, DGQP, scores.

    Raises:
        TypeError: not a GFL, or with parts that have no tensor-only form: another anchor generator,
            another post-processing, soft-NMS (level "full" only).
        ValueError: another ``level`` or ``preprocessing``; ``stds`` of a box representation without
            a standard deviation, or where the post-processing has them switched off; or a
            calibration at another level than "full".
    """

    score_thresh: Tensor

    def __init__(
        self,
        detector: nn.Module,
        level: str = "full",
        *,
        preprocessing: str = "inside",
        stds: bool | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if level not in LEVELS:
            raise ValueError(f"level is {level!r}; expected one of {', '.join(LEVELS)}")
        if preprocessing not in ("inside", "outside"):
            raise ValueError(f"preprocessing is {preprocessing!r}; expected 'inside' or 'outside'")
        detector = _checked(detector, level, bool(stds))
        if stds is None:
            has_std = hasattr(detector.head.box_representation, "std")
            stds = level == "full" and has_std and cast("NMSPostProcess", detector.postprocess).stds
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        fold_norms(self.detector)
        if dtype is not None:
            self.detector.cast_networks(dtype)
            for module in self.detector.modules():
                if isinstance(module, DistributionGuidedQualityPredictor):
                    module.float()
        self.level, self.preprocessing, self.stds = level, preprocessing, stds
        self.strides = [int(stride) for stride in self.detector.strides]
        self.offset = float(cast("Any", self.detector.anchor_generator).offset)
        self.clip_margin = 0.0  # of "full" alone, whose boxes are those of the detector
        self._check_locations()
        self.kept_by_nms: KeptByNMS = kept_by_nms
        if level == "full":
            self._set_up_postprocess(cast("NMSPostProcess", self.detector.postprocess))

    def _set_up_postprocess(self, part: NMSPostProcess) -> None:
        num_classes = self.detector.num_classes
        thresholds = part.thresholds(num_classes)
        if not isinstance(thresholds, tuple):
            thresholds = (thresholds,) * num_classes
        # (K,) In the files it has this name, and can be changed there.
        self.register_buffer("score_thresh", torch.tensor(thresholds))
        self.topk, self.max_detections = part.topk_candidates, part.max_detections
        self.clip_margin = float(part.clip_margin)
        self.nms_thresh = float(part.nms_thresh)
        self.class_agnostic = cast("HardNMS", part.suppression).class_agnostic
        self.calibration = part.calibration

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in order."""
        sizes = self.preprocessing == "outside" and self.level != "raw"
        return ["images", "image_sizes"] if sizes else ["images"]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        if self.level == "raw":
            kinds = ["cls_logits", "box_logits"]
            kinds += ["quality_logits"] if self._has_quality() else []
            kinds += ["stds"] if self.stds else []
            names = self.detector.head_in_features
            return [f"{kind}_{name}" for kind in kinds for name in names]
        names = ["boxes", "scores"]
        names += ["classes", "image_idxs"] if self.level == "full" else []
        return names + (["stds"] if self.stds else [])

    def forward(self, images: Tensor, image_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        """
        Args:
            images: (N, C, H, W) float32. With preprocessing inside, values 0..255 in the model's
                order of channels. Outside: normalized, with zeros to the right and below up to
                multiples of the backbone's divisibility.
            image_sizes: (N, 2) int64, (height, width) of the images without padding, pixels. With
                preprocessing outside only.

        Returns:
            Of level "raw", for each pyramid level: class logits (N, H*W, K); then box logits
            (N, H*W, 4, C); then quality logits (N, H*W, 1), if there are any; then stds (N, H*W, 4)
            in strides, if asked for. Rows of the map come first.
            Of "decoded": boxes (N, R, 4), clipped to the image; scores (N, R, K); stds (N, R, 4)
            pixels.
            Of "full": boxes (D, 4); scores (D,); classes (D,) and image_idxs (D,) int64; stds
            (D, 4). Image after image, each best first.
        """
        features = self.detector.features(self._preprocessed(images))
        shapes = [(x.shape[-2], x.shape[-1]) for x in features]
        predictions = self.detector.predictions(features)
        if self.level == "raw":
            return self._raw(predictions, [h * w for h, w in shapes])
        centers, strides = self._locations(shapes, images)
        distances = predictions.distances_of(predictions.box_logits)
        boxes = distances_to_boxes(centers, distances * strides)
        boxes = _clipped(boxes, images, image_sizes, self.clip_margin)
        scores = predictions.joint_logits().sigmoid()
        if self.level == "decoded":
            if not self.stds:
                return boxes, scores
            return boxes, scores, self._stds(predictions.box_logits) * strides
        *found, locations = self._detections(boxes, scores, [h * w for h, w in shapes])
        if self.stds:
            stds = self._stds(predictions.box_logits[found[3], locations]) * strides[locations]
            found.append(stds if self.calibration is None else stds * self.calibration.std_scale)
        if self.calibration is not None:
            found[1] = self.calibration.score(found[1])
        return tuple(found)

    def _preprocessed(self, images: Tensor) -> Tensor:
        if self.preprocessing == "outside":
            return images
        images = (images - self.detector.pixel_mean) / self.detector.pixel_std
        step = max(self.detector.backbone.size_divisibility, 1)
        height, width = images.shape[-2], images.shape[-1]
        return F.pad(images, (0, -width % step, 0, -height % step))

    def _locations(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
        """Centres (R, 2) and strides (R, 1) of all locations, pixels."""
        centers, strides = [], []
        for (height, width), stride in zip(shapes, self.strides):
            rows, columns = (
                (torch.arange(n, device=like.device) + self.offset) * stride
                for n in (height, width)
            )
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            centers.append(torch.stack([x, y], dim=-1).flatten(0, 1))
            strides.append(torch.full_like(centers[-1][:, :1], float(stride)))
        return torch.cat(centers), torch.cat(strides)

    def _raw(self, predictions: DensePredictions, sizes: Sequence[int]) -> tuple[Tensor, ...]:
        tensors = [*predictions.tensors]
        if self.stds:
            tensors.append(self._stds(predictions.box_logits))
        return tuple(x for tensor in tensors for x in _per_level(tensor, sizes))

    def _stds(self, box_logits: Tensor) -> Tensor:
        """(..., 4, C) -> (..., 4) strides."""
        return cast("Any", self.detector.head.box_representation).std(box_logits)

    def _detections(
        self, boxes: Tensor, scores: Tensor, sizes: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Boxes (D, 4), scores, classes, image and location (D,) of the detections."""
        num_classes = scores.shape[-1]
        scores = torch.where(scores > self.score_thresh, scores, -1.0)  # -1: no candidate
        best, idxs = [], []
        start = 0
        for level, size in zip(_per_level(scores, sizes), sizes):
            values, order = _best(level.flatten(1), self.topk)
            # In the order of locations, as the detector has them: of equals NMS takes the first.
            order, places = order.sort(dim=1)
            values = values.gather(1, places)
            # What only fills up has an index beyond the level: any location will do.
            best.append(values)
            idxs.append(torch.where(values >= 0, order, 0) + start * num_classes)
            start = start + size
        candidate_scores, candidates = torch.cat(best, dim=1), torch.cat(idxs, dim=1)  # (N, T)
        locations = candidates.div(num_classes, rounding_mode="floor")
        classes = candidates - locations * num_classes
        candidate_boxes = boxes.gather(1, locations[..., None].expand(-1, -1, 4))
        keep = self.kept_by_nms(
            candidate_boxes,
            candidate_scores,
            torch.zeros_like(classes) if self.class_agnostic else classes,
            self.nms_thresh,
            1 if self.class_agnostic else num_classes,
            self.max_detections,
        )
        values, order = _best(torch.where(keep, candidate_scores, -1.0), self.max_detections)
        order = torch.where(values >= 0, order, 0)
        best_boxes = candidate_boxes.gather(1, order[..., None].expand(-1, -1, 4))
        # As detector_postprocess: a box that lay on the padding has no area now.
        areas = (best_boxes[..., 2:] - best_boxes[..., :2]).prod(dim=-1)
        image_idxs, places = ((values >= 0) & (areas > 0)).nonzero(as_tuple=True)  # (D,)
        chosen = order[image_idxs, places]
        found = [best_boxes[image_idxs, places], values[image_idxs, places]]
        return *found, classes[image_idxs, chosen], image_idxs, locations[image_idxs, chosen]

    def _has_quality(self) -> bool:
        with torch.no_grad():
            zeros = [torch.zeros(1, shape.channels, 1, 1) for shape in self._feature_shapes()]
            zeros = [x.to(next(self.detector.backbone.parameters())) for x in zeros]
            return self.detector.head(zeros).quality_logits is not None

    def _feature_shapes(self):
        shapes = self.detector.backbone.output_shape()
        return [shapes[name] for name in self.detector.head_in_features]

    def _check_locations(self) -> None:
        """Own centres and the anchor generator's must be the same."""
        shapes = [(3 + i, 2 + i) for i in range(len(self.strides))]
        maps = [torch.zeros(1, 1, *shape) for shape in shapes]
        like = next(self.detector.anchor_generator.buffers(), maps[0])
        maps = [x.to(like.device) for x in maps]
        anchors = self.detector.anchors(maps)
        centers, strides = self._locations(shapes, maps[0])
        if not (
            torch.allclose(centers, anchors.centers, atol=1e-4)
            and torch.equal(strides[:, 0], anchors.strides)
        ):
            raise TypeError(
                "the anchors' centres are not at (index + offset) * stride; gfocal export knows no "
                "others"
            )


def _checked(detector: nn.Module, level: str, stds: bool) -> GFL:
    if not isinstance(detector, GFL):
        hint = "; its tools/deploy/export_model.py traces RetinaNet"
        raise TypeError(
            f"got a {type(detector).__name__}; gfocal export is for GFL. A detector of Detectron2 "
            f"is exported by Detectron2{hint}"
        )
    if type(detector.anchor_generator) is not DefaultAnchorGenerator:
        raise TypeError(
            f"the anchor generator is a {type(detector.anchor_generator).__name__}; gfocal export "
            "knows DefaultAnchorGenerator"
        )
    if any(isinstance(x, (DeformConv, ModulatedDeformConv)) for x in detector.modules()):
        raise TypeError(
            "a convolution is Detectron2's compiled DeformConv, which no format has; expected "
            "gfocal.backbones.deformable.DeformConv2d, which takes the same weights"
        )
    if level == "full":
        part = detector.postprocess
        if type(part) is not NMSPostProcess:
            raise TypeError(
                f"the postprocess is a {type(part).__name__}; level 'full' knows NMSPostProcess. "
                "Level 'decoded' ends before it"
            )
        if type(part.suppression) is not HardNMS:
            raise TypeError(
                f"the suppression is {part.suppression!r}; level 'full' knows HardNMS, as "
                "runtimes do. Level 'decoded' ends before it"
            )
        if stds and not part.stds:
            raise ValueError("stds of a detector whose postprocess has stds=False; set it to True")
    elif getattr(detector.postprocess, "calibration", None) is not None:
        raise ValueError(f"a calibrated detector at level {level!r}; expected level 'full'")
    if stds and not hasattr(detector.head.box_representation, "std"):
        raise ValueError(
            f"stds of a {type(detector.head.box_representation).__name__}: it has no standard "
            "deviation"
        )
    return detector


def _clipped(
    boxes: Tensor, images: Tensor, image_sizes: Tensor | None, margin: float = 0.0
) -> Tensor:
    """Boxes (N, R, 4) clipped to the images: those of the tensor, or of (N, 2) sizes. They end
    ``margin`` pixels before the right and the lower margin."""
    x0, y0, x1, y1 = boxes.clamp(min=0).unbind(dim=-1)
    if image_sizes is None:
        height, width = images.shape[-2] - margin, images.shape[-1] - margin
        sides = [x0.clamp(max=width), y0.clamp(max=height)]
        sides += [x1.clamp(max=width), y1.clamp(max=height)]
    else:
        limits = (image_sizes.to(boxes.dtype)[:, [1, 0, 1, 0]] - margin).unbind(dim=1)  # (N,) each
        sides = [torch.minimum(x, y[:, None]) for x, y in zip((x0, y0, x1, y1), limits)]
    return torch.stack(sides, dim=-1)


def _per_level(x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """(N, R, ...) -> (N, R_i, ...) of each level. (Under a trace the sizes are tensors, which
    ``split`` would freeze.)"""
    ret, start = [], 0
    for size in sizes:
        ret.append(x[:, start : start + size])
        start = start + size
    return ret


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest scores of each row, and their places. Rows are filled up with -1, so that k is
    a constant."""
    found = F.pad(scores, (0, k), value=-1.0).topk(k)
    return found.values, found.indices
