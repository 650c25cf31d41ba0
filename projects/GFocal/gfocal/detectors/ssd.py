"""SSD: Single Shot MultiBox Detector (https://arxiv.org/abs/1512.02325).

At every location of several maps there are prior boxes of a few shapes. Each has class scores and
deltas to a box.

N images, R priors over all levels, K classes, C class channels of a prior, M positive priors of the
whole batch; boxes are XYXY in pixels of the network's input.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Instances
from fvcore.nn import smooth_l1_loss
from torch import Tensor

from ..modeling.boxes import aligned_iou
from ..modeling.detector import Detector
from ..modeling.ground_truth import check_ground_truth
from ..modeling.matchers import MaxIoUMatcher, check_matches, ignore_background_inside
from ..modeling.numerics import at_least_float32, to_device
from ..modeling.observers import TrainingStep, is_due
from ..modeling.postprocess import Candidates, NMSPostProcess
from ..modeling.prior_head import PriorPredictions, SSDHead
from ..modeling.prior_losses import ClassLoss, PriorLossInputs
from ..modeling.priors import PriorBoxes, PriorGenerator
from ..modeling.statistics import put_target_statistics
from ..modeling.structures import BACKGROUND, GroundTruth
from ..modeling.yacs_ssd import ssd_arguments
from ..process.sums import sum_over_workers

__all__ = ["SSD", "PriorTargets"]


class PriorTargets(NamedTuple):
    """The labels of all priors.

    Attributes:
        idxs: (N, R) index into that image's boxes, -1 background, -2 ignored.
        fg_idxs: (image (M,), prior (M,)) of the positives.
        fg_labels: (M,) their classes.
        fg_boxes: (M, 4) their boxes.
    """

    idxs: Tensor
    fg_idxs: tuple[Tensor, Tensor]
    fg_labels: Tensor
    fg_boxes: Tensor


@META_ARCH_REGISTRY.register()
class SSD(Detector):
    """SSD on the maps of a backbone, all of them.

    Both losses are divided by the number of positive priors, where an image without any counts as
    one; this divisor is a mean over the processes. ``loss_box_reg`` is the smooth L1 loss of the
    positives' deltas, summed over the four.

    Args:
        backbone: a Detectron2 backbone, e.g. :class:`gfocal.backbones.SSDPyramid`.
        anchor_generator: makes the priors; of as many levels and of the strides of the backbone.
        matcher: ``(priors, truth, None)`` -> ``Matches``.
        box2box_transform: Detectron2's, between priors and boxes.
        cls_loss: the loss of the classes, which also says how many channels they have and how
            scores are read; see :mod:`gfocal.modeling.prior_losses`.
        smooth_l1_beta: below it, the loss of a delta is a parabola.
        statistics_period: iterations between looks at the targets: positives_per_image,
            boxes_without_positive and mean_iou_of_positives of
            :class:`gfocal.modeling.statistics.TargetStatistics`; 0 for none.
        shared: see :class:`gfocal.modeling.detector.Detector`.

    Raises:
        ValueError: the parts do not fit together, or a setting is out of its range.
        TypeError: a ``postprocess`` of another kind.
    """

    yacs_arguments = staticmethod(ssd_arguments)

    @configurable
    def __init__(
        self,
        *,
        anchor_generator: PriorGenerator,
        matcher: MaxIoUMatcher,
        box2box_transform: Box2BoxTransform,
        cls_loss: ClassLoss,
        smooth_l1_beta: float = 1.0,
        statistics_period: int = 20,
        **shared: Any,
    ):
        super().__init__(**shared)
        self.observers.insert(0, PriorStatistics(statistics_period))
        self.anchor_generator = anchor_generator
        self.matcher, self.box2box_transform = matcher, box2box_transform
        self.cls_loss = cls_loss
        self.smooth_l1_beta = smooth_l1_beta
        self.head = self._head()

    def published(self) -> dict[str, Any]:
        return {
            "test_score_thresh": 0.02,
            "test_topk_candidates": 1000,
            "test_nms_thresh": 0.45,
            "max_detections_per_image": 200,
        }

    def _head(self) -> SSDHead:
        """The head that the parts need, after a check of the parts."""
        shapes = self.backbone.output_shape()
        strides = [x.stride for x in shapes.values()]
        if self.anchor_generator.strides != strides:
            raise ValueError(
                f"anchor_generator has strides {self.anchor_generator.strides}; expected those of "
                f"the backbone's maps {list(shapes)}: {strides}"
            )
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}; expected at least 1")
        if not self.smooth_l1_beta >= 0:
            raise ValueError(f"smooth_l1_beta is {self.smooth_l1_beta}; expected at least 0")
        return SSDHead(
            in_channels=[x.channels for x in shapes.values()],
            num_priors=self.anchor_generator.num_anchors,
            num_channels=self.cls_loss.num_channels(self.num_classes),
            initialize=self.cls_loss.initialize,
        )

    def predict(self, images: Tensor) -> tuple[PriorBoxes, PriorPredictions]:
        """Priors and predictions of normalized and padded images (N, C, H, W)."""
        maps = self.backbone(images.to(next(self.backbone.parameters()).dtype))
        features = list(maps.values())
        return self.anchor_generator(features), self.head(features)

    def raw(self, images: Tensor) -> dict[str, Tensor]:
        """The network's outputs: cls_logits (N, R, C) and deltas (N, R, 4)."""
        return self.predict(images)[1]._asdict()

    def decode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, R, 4), XYXY pixels, not clipped, and scores (N, R, K) of all priors."""
        priors, predictions = self.predict(images)
        deltas = at_least_float32(predictions.deltas)
        of_images = priors.boxes.expand(deltas.shape[0], -1, -1).flatten(0, 1)
        boxes = self.box2box_transform.apply_deltas(deltas.flatten(0, 1), of_images)
        return boxes.view_as(deltas), self.cls_loss.scores(predictions.cls_logits)

    @torch.no_grad()
    def targets(self, priors: PriorBoxes, truth: GroundTruth) -> PriorTargets:
        """The labels of a batch. Priors on the padding are ignored, and so is background in
        ``truth.ignore_regions``.

        Raises:
            TypeError, ValueError: if the matcher's answer is not valid, see
                :func:`gfocal.modeling.matchers.check_matches`, or the ground truth, see
                :func:`gfocal.modeling.ground_truth.check_ground_truth`.
        """
        check_ground_truth(truth, len(truth.boxes), self.num_classes)
        matches = self.matcher(priors, truth, None)
        check_matches(matches, cast("Any", priors), truth, self.matcher)
        idxs = ignore_background_inside(matches.idxs, cast("Any", priors), truth.ignore_regions)
        images, locations = (idxs >= 0).nonzero(as_tuple=True)
        counts = to_device(truth.counts, idxs)
        rows = idxs[images, locations] + (counts.cumsum(0) - counts)[images]
        return PriorTargets(
            idxs=idxs,
            fg_idxs=(images, locations),
            fg_labels=torch.cat([x.to(torch.int64) for x in truth.classes])[rows],
            fg_boxes=torch.cat([x.tensor for x in truth.boxes])[rows],
        )

    def losses(
        self,
        priors: PriorBoxes,
        predictions: PriorPredictions,
        truth: GroundTruth,
        batched_inputs: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_box_reg`` of a batch, scalars in at least float32.

        Args:
            priors, predictions, truth: of the batch.
            batched_inputs: for the observers, who may draw the images.

        Raises:
            TypeError, ValueError: see :meth:`targets`.
        """
        targets = self.targets(priors, truth)
        deltas = at_least_float32(predictions.deltas[targets.fg_idxs])
        wanted = self.box2box_transform.get_deltas(
            priors.boxes[targets.fg_idxs[1]], targets.fg_boxes.to(priors.boxes.dtype)
        )
        num_positives = (targets.idxs >= 0).sum(dim=1)
        total, world_size = sum_over_workers(num_positives.clamp(min=1).sum().to(deltas.dtype))
        divisor = total / world_size
        inputs = PriorLossInputs(
            cls_logits=predictions.cls_logits,
            negatives=targets.idxs == BACKGROUND,
            fg_idxs=targets.fg_idxs,
            fg_labels=targets.fg_labels,
            fg_ious=self.ious(priors, predictions, targets),
            num_positives=num_positives,
            divisor=divisor,
        )
        box_loss = smooth_l1_loss(deltas, wanted, self.smooth_l1_beta, reduction="sum")
        losses = {
            "loss_cls": self.cls_loss(inputs),
            "loss_box_reg": box_loss / divisor,
        }
        self.observe(TrainingStep((priors, predictions.detach()), truth, batched_inputs))
        return losses

    @torch.no_grad()
    def ious(
        self, priors: PriorBoxes, predictions: PriorPredictions, targets: PriorTargets
    ) -> Tensor:
        """(M,) IoU of predicted and true box of the positives."""
        boxes = self._decoder(priors, predictions)(*targets.fg_idxs)
        return aligned_iou(boxes, targets.fg_boxes)

    def _decoder(
        self, priors: PriorBoxes, predictions: PriorPredictions
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """From images (T,) and priors (T,) to predicted boxes (T, 4)."""
        return lambda images, locations: self.box2box_transform.apply_deltas(
            at_least_float32(predictions.deltas[images, locations]), priors.boxes[locations]
        )

    def inference(
        self,
        priors: PriorBoxes,
        predictions: PriorPredictions,
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Detections in pixels of the network's input, see the post-processing; ``image_sizes`` are
        (height, width) without padding."""
        arguments = self._scored(priors, predictions, image_sizes)
        return self._postprocess().of_scores(*arguments)

    @torch.no_grad()
    def candidates(self, batched_inputs: list[dict[str, Any]]) -> list[Candidates]:
        """What is left to NMS, for each image, in pixels of the network's input."""
        images = self.preprocess_image(batched_inputs)
        arguments = self._scored(*self.predict(images.tensor), images.image_sizes)
        return self._postprocess().candidates_of_scores(*arguments)

    def suppress(self, image_size: tuple[int, int], candidates: Candidates) -> Instances:
        """The detections among the candidates of one image, in pixels of ``image_size``."""
        return self._postprocess().suppress(image_size, candidates)

    def _postprocess(self) -> NMSPostProcess:
        return cast("NMSPostProcess", self.postprocess)

    def _scored(
        self,
        priors: PriorBoxes,
        predictions: PriorPredictions,
        image_sizes: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, list[int], Callable[[Tensor, Tensor], Tensor], Sequence[tuple[int, int]]]:
        """The arguments of the post-processing's methods."""
        scores = self.cls_loss.scores(predictions.cls_logits)
        return scores, priors.level_sizes, self._decoder(priors, predictions), image_sizes


class PriorStatistics:
    """Looks at the targets once in ``period`` iterations; 0 for never."""

    def __init__(self, period: int):
        self.period = period

    @torch.no_grad()
    def __call__(self, detector: SSD, step: TrainingStep) -> None:
        if not is_due(self.period):
            return
        priors, predictions = step.outputs
        targets, counts = detector.targets(priors, step.truth), step.truth.counts
        images, locations = targets.fg_idxs
        # The place of a box among those of its image names it.
        most = max(1, *counts)
        places = images * most + targets.idxs[images, locations]
        has_positive = places.new_zeros(len(counts) * most).index_fill(0, places, 1)
        ious = detector.ious(priors, predictions, targets)
        numbers = to_device([len(counts), sum(counts), len(images)], ious.double())
        sums = torch.stack([has_positive.sum().double(), ious.double().sum()])
        put_target_statistics(torch.cat([numbers, sums]))
