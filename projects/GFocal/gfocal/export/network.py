"""A detector as a function from tensors to tensors, for tracing and exporting.

A detector's `raw` and `decode_levels` say what is on the images; see
:class:`gfocal.modeling.detector.Detector`. Around them are the normalization of images, and
threshold, top-k and NMS of :class:`gfocal.modeling.postprocess.NMSPostProcess`, on tensors of fixed
size. No Python number depends on what is on the images, and sizes are read from the input each
time. So a graph made from one batch is right for every other.

N images, R locations, K classes, T candidates (topk_candidates a level), D detections of all images
together. Boxes are XYXY pixels of the input.
"""

import copy
import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from detectron2.layers import DeformConv, ModulatedDeformConv
from torch import Tensor, nn
from torch.nn import functional as F

from .._padding import Padding
from ..modeling.decoded import Decoded, per_level
from ..modeling.detector import Detector
from ..modeling.postprocess import NMSPostProcess
from ..modeling.quality import DistributionGuidedQualityPredictor
from ..modeling.suppression import HardNMS
from .card import LEVELS
from .nms import KeptByNMS, kept_by_nms
from .optimize import fold_norms

__all__ = ["TensorNetwork"]

_TRIED = (192, 256)  # of the image that tells the outputs: height and width, pixels
_ONE_SIZE = (
    ". A detector for images of one size is exported with it: by one Resize as the test "
    "augmentations of the config, or resize={'height': H, 'width': W}"
)


class TensorNetwork(nn.Module):
    """A detector from tensors to tensors.

    Args:
        detector: with its weights. It is copied, with batch norms folded into the convolutions.
        level: "raw": what the network answers; "decoded": boxes and scores of all locations;
            "full": detections.
        preprocessing: "inside": images have values 0..255, of any size, and are normalized and
            padded here. "outside": they are normalized and padded already.
        stds: whether the standard deviation of each side is an output. By default at level "full",
            where the detections of the detector have it: there it costs nothing.
        dtype: of the networks. All else is in float32: softmax, expectation, DGQP, scores.
        image_size: (height, width) of all images, pixels, of a detector for one size; None: any.

    Raises:
        TypeError: not a detector of gfocal, or with parts that have no tensor-only form: another
            anchor generator, another post-processing, soft-NMS (level "full" only).
        ValueError: another ``level`` or ``preprocessing``; ``stds`` of a detector without standard
            deviations, or where the post-processing has them switched off; a calibration at another
            level than "full"; or an image that the networks cannot take.
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
        image_size: tuple[int, int] | None = None,
    ):
        super().__init__()
        if level not in LEVELS:
            raise ValueError(f"level is {level!r}; expected one of {', '.join(LEVELS)}")
        if preprocessing not in ("inside", "outside"):
            raise ValueError(f"preprocessing is {preprocessing!r}; expected 'inside' or 'outside'")
        asked = bool(stds)
        detector = _checked(detector, level, asked)
        if stds is None:
            has_std = hasattr(detector.box_representation, "std")
            stds = level == "full" and has_std and cast("NMSPostProcess", detector.postprocess).stds
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        fold_norms(self.detector)
        if dtype is not None:
            self.detector.cast_networks(dtype)
            for module in self.detector.modules():
                if isinstance(module, DistributionGuidedQualityPredictor):
                    module.float()
        self.level, self.preprocessing, self.stds = level, preprocessing, stds
        self.image_size = image_size
        # A post-processing of one's own may have none.
        self.clip_margin = float(getattr(detector.postprocess, "clip_margin", 0.0))
        self.kept_by_nms: KeptByNMS = kept_by_nms
        self._raw_names = self._try_networks(asked)
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
        self.nms_thresh = float(part.nms_thresh)
        self.class_agnostic = cast("HardNMS", part.suppression).class_agnostic
        self.calibration = part.calibration

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in order."""
        # Only boxes that are clipped ask where an image ends.
        clips = self.level != "raw" and self.detector.clips_boxes
        with_sizes = clips and self.preprocessing == "outside"
        return ["images", "image_sizes"] if with_sizes else ["images"]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        if self.level == "raw":
            return self._raw_names
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
                preprocessing outside only, where boxes are clipped.

        Returns:
            Of level "raw": the values of the detector's ``raw``, see its documentation.
            Of "decoded": boxes (N, R, 4); scores (N, R, K); stds (N, R, 4) pixels.
            Of "full": boxes (D, 4); scores (D,); classes (D,) and image_idxs (D,) int64; stds
            (D, 4). Image after image, each best first.
            Boxes are clipped to the image, if the detector's are.
        """
        padded = self._preprocessed(images)
        if self.level == "raw":
            return tuple(self._raw(padded).values())
        decoded = self.detector.decode_levels(padded)
        if self.detector.clips_boxes:
            decoded = decoded._replace(
                boxes=_clipped(decoded.boxes, images, image_sizes, self.clip_margin)
            )
        if self.level == "decoded":
            found = (decoded.boxes, decoded.scores)
            return (*found, self._stds(decoded)) if self.stds else found
        *detections, locations = self._detections(*decoded[:3])
        if self.stds:
            stds = self._stds(decoded, detections[3], locations)
            detections.append(
                stds if self.calibration is None else stds * self.calibration.std_scale
            )
        if self.calibration is not None:
            detections[1] = self.calibration.score(detections[1])
        return tuple(detections)

    def _preprocessed(self, images: Tensor) -> Tensor:
        if self.preprocessing == "outside":
            return images
        return self._padded((images - self.detector.pixel_mean) / self.detector.pixel_std)

    def _padded(self, images: Tensor) -> Tensor:
        step, square = Padding.of(self.detector.backbone)
        height, width = images.shape[-2], images.shape[-1]
        if square:
            side = square + -square % step
            return F.pad(images, (0, side - width, 0, side - height))
        return F.pad(images, (0, -width % step, 0, -height % step))

    def _raw(self, images: Tensor) -> dict[str, Tensor]:
        return self.detector.raw(images, **({"stds": True} if self.stds else {}))

    def _stds(self, decoded: Decoded, *places: Tensor) -> Tensor:
        assert decoded.stds is not None
        return decoded.stds(*places)

    def _detections(
        self, boxes: Tensor, scores: Tensor, sizes: Sequence[Any]
    ) -> tuple[Tensor, ...]:
        """Boxes (D, 4), scores, classes, image and location (D,) of the detections."""
        num_classes = scores.shape[-1]
        scores = torch.where(scores > self.score_thresh, scores, -1.0)  # -1: no candidate
        kept, idxs = [], []
        start = 0
        for level, size in zip(per_level(scores, sizes), sizes):
            values, order = _best(level.flatten(1), self.topk)
            # In the order of locations, as the detector has them: of equals NMS takes the first.
            order, places = order.sort(dim=1)
            values = values.gather(1, places)
            # What only fills up has an index beyond the level: any location will do.
            kept.append(values)
            idxs.append(torch.where(values >= 0, order, 0) + start * num_classes)
            start = start + size
        candidate_scores, candidates = torch.cat(kept, dim=1), torch.cat(idxs, dim=1)  # (N, T)
        locations = candidates.div(num_classes, rounding_mode="floor")
        classes = candidates - locations * num_classes
        candidate_boxes = boxes.gather(1, locations[..., None].expand(-1, -1, 4))
        if self.nms_thresh < 1:  # an IoU is never above
            keep = self.kept_by_nms(
                candidate_boxes,
                candidate_scores,
                torch.zeros_like(classes) if self.class_agnostic else classes,
                self.nms_thresh,
                1 if self.class_agnostic else num_classes,
                self.max_detections,
            )
            candidate_scores = torch.where(keep, candidate_scores, -1.0)
        values, order = _best(candidate_scores, self.max_detections)
        order = torch.where(values >= 0, order, 0)
        best_boxes = candidate_boxes.gather(1, order[..., None].expand(-1, -1, 4))
        found = values >= 0
        if self.detector.clips_boxes:
            # As detector_postprocess: a box that lay on the padding has no area now.
            found = found & ((best_boxes[..., 2:] - best_boxes[..., :2]).prod(dim=-1) > 0)
        image_idxs, places = found.nonzero(as_tuple=True)  # (D,)
        chosen = order[image_idxs, places]
        best = [best_boxes[image_idxs, places], values[image_idxs, places]]
        return *best, classes[image_idxs, chosen], image_idxs, locations[image_idxs, chosen]

    @torch.no_grad()
    def _try_networks(self, needs_stds: bool) -> list[str]:
        """The names of the outputs of level "raw", from a run on one image. ([] at other levels.)

        Raises:
            TypeError: the detector has no such level.
            ValueError: the networks do not take the image; or it gives no standard deviations here,
                which somebody ``needs``.
        """
        height, width = self.image_size or _TRIED
        image = self.detector.pixel_mean.expand(-1, height, width)[None]
        name = type(self.detector).__name__
        try:
            if self.level == "raw":
                return list(self._raw(self._padded(image)))
            has_stds = self.detector.decode_levels(self._padded(image)).stds is not None
        except NotImplementedError:
            raise TypeError(
                f"{name} has no `raw` or `decode`, of which level {self.level!r} is made; see "
                "gfocal.modeling.detector.Detector"
            ) from None
        except RuntimeError as error:
            hint = "" if self.image_size else _ONE_SIZE
            raise ValueError(
                f"{name} does not take an image of {height} x {width} px "
                f"({str(error).splitlines()[0]}){hint}"
            ) from error
        if needs_stds and not has_stds:
            raise ValueError(f"stds of a {name}: its decode_levels gives no standard deviation")
        self.stds = self.stds and has_stds
        return []


def _checked(detector: nn.Module, level: str, stds: bool) -> Detector:
    if not isinstance(detector, Detector):
        hint = "; its tools/deploy/export_model.py traces RetinaNet"
        raise TypeError(
            f"got a {type(detector).__name__}; gfocal export is for the detectors of gfocal (GFL, "
            "SSD, CenterNet, CornerNet). A detector of Detectron2 is exported by Detectron2" + hint
        )
    detector.check_decode()
    if any(isinstance(x, (DeformConv, ModulatedDeformConv)) for x in detector.modules()):
        raise TypeError(
            "a convolution is Detectron2's compiled DeformConv, which no format has; expected "
            "gfocal.backbones.deformable.DeformConv2d, which takes the same weights"
        )
    part = getattr(detector, "postprocess", None)
    if level == "full":
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
    elif getattr(part, "calibration", None) is not None:
        raise ValueError(f"a calibrated detector at level {level!r}; expected level 'full'")
    if stds and not hasattr(detector.box_representation, "std"):
        whose = detector if detector.box_representation is None else detector.box_representation
        raise ValueError(f"stds of a {type(whose).__name__}: it has no standard deviation")
    if stds and level == "raw" and "stds" not in inspect.signature(detector.raw).parameters:
        raise ValueError(
            f"stds of a {type(detector).__name__}: its `raw` has no standard deviation"
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


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest scores of each row, and their places. Rows are filled up with -1, so that k is
    a constant."""
    found = F.pad(scores, (0, k), value=-1.0).topk(k)
    return found.values, found.indices
