"""CornerNet: an object is a pair of corners (https://arxiv.org/abs/1808.01244).

There are no anchors. Heat maps say where top left and bottom right corners are, embeddings which of
them belong together, offsets where in its cell a corner lies.

N images, K classes, G objects of the batch. Boxes are XYXY in pixels of the network's input.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor

from ..modeling.boxes import aligned_iou
from ..modeling.corner_head import CornerHead
from ..modeling.corner_losses import CornerCriterion, Objects, objects_of
from ..modeling.corners import (
    STRIDE,
    CornerMaps,
    CornerPairs,
    CornerPredictions,
    best_corners,
    pair_corners,
)
from ..modeling.detector import Detector
from ..modeling.ground_truth import check_ground_truth
from ..modeling.head import check_channels_between
from ..modeling.numerics import to_device
from ..modeling.observers import TrainingStep, is_due
from ..modeling.postprocess import Candidates
from ..modeling.settings import COUNT, FLAG, POSITIVE, check_setting
from ..modeling.sides import in_unpadded_output
from ..modeling.statistics import put_target_statistics
from ..modeling.structures import GroundTruth
from ..modeling.suppression import GaussianSoftNMS
from ..modeling.yacs_cornernet import cornernet_arguments

__all__ = ["CornerNet", "CornerStatistics"]


@META_ARCH_REGISTRY.register()
class CornerNet(Detector):
    """CornerNet.

    Padding is background.

    Detections are not clipped at the right and at the bottom, nor dropped if they are empty.

    Args:
        head: a :class:`gfocal.modeling.corner_head.CornerHead`.
        in_features: names of the backbone's maps, a stack each, the last one last. By default all.
        criterion: a :class:`gfocal.modeling.corner_losses.CornerCriterion`.
        num_corners: so many corners of each kind are paired.
        max_distance: of the embeddings of a pair.
        test_flip: also the mirror of each image; both answers go into one NMS.
        statistics_period: iterations between looks at the targets, see :class:`CornerStatistics`; 0
            for none.
        shared: see :class:`gfocal.modeling.detector.Detector`. The backbone has maps of stride 4,
            e.g. :class:`gfocal.backbones.Hourglass`. ``test_topk_candidates`` is the number of
            pairs of an image, or of its mirror, that go into NMS. ``test_score_thresh`` is that of
            a pair; soft-NMS lowers scores below it, to its own ``min_score``. By default NMS is
            Gaussian soft-NMS.

    Raises:
        ValueError: the parts do not fit together, or a setting is out of its range.
        TypeError: a ``postprocess`` that has no candidates.
    """

    clips_boxes = False

    yacs_arguments = staticmethod(cornernet_arguments)

    @configurable
    def __init__(
        self,
        *,
        head: CornerHead,
        in_features: Sequence[str] | None = None,
        criterion: CornerCriterion,
        num_corners: int = 100,
        max_distance: float = 0.5,
        test_flip: bool = False,
        statistics_period: int = 20,
        **shared: Any,
    ):
        super().__init__(**shared)
        self.observers.insert(0, CornerStatistics(statistics_period))
        self.head, self.in_features = head, list(in_features or self.backbone.output_shape())
        self.criterion = criterion
        self.num_corners, self.max_distance, self.test_flip = num_corners, max_distance, test_flip
        self._check_parts()

    def published(self) -> dict[str, Any]:
        return {"test_score_thresh": 0.0, "suppression": GaussianSoftNMS(class_shift=True)}

    def _check_parts(self) -> None:
        check_setting("num_corners", self.num_corners, COUNT)
        check_setting("max_distance", self.max_distance, POSITIVE)
        check_setting("test_flip", self.test_flip, FLAG)
        head, names, shapes = self.head, self.in_features, self.backbone.output_shape()
        if (head.num_classes, head.num_stacks) != (self.num_classes, len(names)):
            raise ValueError(
                f"the head has {head.num_classes} classes and {head.num_stacks} stacks; expected "
                f"those of the detector, {self.num_classes}, and of in_features {names}"
            )
        if missing := [name for name in names if name not in shapes]:
            raise ValueError(f"in_features {missing} are not among {sorted(shapes)}")
        if {shapes[name].stride for name in names} != {STRIDE}:
            raise ValueError(
                f"in_features {names} have strides {[shapes[name].stride for name in names]}; "
                f"expected {STRIDE}"
            )
        for name in names:
            check_channels_between(head.in_channels, name, shapes)

    def networks(self) -> tuple[Backbone, CornerHead]:
        """Returns backbone and head, the parts that have weights."""
        return self.backbone, self.head

    def _predictions(self, images: Tensor, last_only: bool) -> CornerPredictions:
        maps = self.backbone(images.to(next(self.backbone.parameters()).dtype))
        return self.head([maps[name] for name in self.in_features], last_only)

    def outputs(self, images: ImageList) -> tuple[CornerPredictions]:
        widths = [width for _, width in images.image_sizes]
        if not self.test_flip or set(widths) == {images.tensor.shape[-1]}:
            return self.predict(images.tensor)
        return self.predict(images.tensor, widths)

    def predict(self, images: Tensor, widths: Sequence[int] = ()) -> tuple[CornerPredictions]:
        """
        Args:
            images: (N, C, H, W), normalized and padded.
            widths: without the padding, pixels; () if there is none.
        """
        predictions = self._predictions(images, last_only=not self.training)
        if self.test_flip and not self.training:
            mirrors = images.flip(-1)
            for mirror, width in zip(mirrors, widths):  # the padding stays on the right
                mirror.copy_(mirror.roll(width - images.shape[-1], dims=-1))
            mirrored = self._predictions(mirrors, last_only=True).stacks[-1]
            predictions = predictions._replace(mirrored=mirrored, widths=widths)
        return (predictions,)

    def raw(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs of all stacks: "top_left_heatmap_stack1" (N, K, H, W), logits, and so on.

        Args:
            images: (N, C, H, W), normalized and padded.
        """
        predictions = self._predictions(images, last_only=False)
        kinds = ("heatmap", "embedding", "offset")
        return {
            f"{corner}_{kind}_{name}": values
            for name, stack in zip(self.in_features, predictions.stacks)
            for corner, maps in zip(("top_left", "bottom_right"), stack)
            for kind, values in zip(kinds, maps)
        }

    def decode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, R, 4), XYXY pixels, and scores (N, R, K) of the best pairs; a score is 0 in all
        classes but that of the pair, and where there is no pair.

        Args:
            images: (N, C, H, W), normalized and padded.
        """
        (predictions,) = self.predict(images)
        boxes, scores, classes = self.pairs(predictions)
        of_class = classes[:, :, None] == torch.arange(self.num_classes, device=classes.device)
        return boxes, torch.where(of_class, scores[:, :, None], 0.0)

    def pairs(self, predictions: CornerPredictions) -> CornerPairs:
        """The best pairs of corners; with ``test_flip`` those of the mirrored images behind."""
        found = self._pairs_of(predictions.stacks[-1])
        if predictions.mirrored is None:
            return found
        mirrored = self._pairs_of(predictions.mirrored)
        x0, y0, x1, y1 = mirrored.boxes.unbind(-1)
        width: Any = predictions.mirrored[0].heat_logits.shape[-1] * STRIDE
        if predictions.widths:
            width = to_device(predictions.widths, x0)[:, None]
        mirrored = mirrored._replace(boxes=torch.stack([width - x1, y0, width - x0, y1], dim=-1))
        return CornerPairs(*(torch.cat(x, dim=1) for x in zip(found, mirrored)))

    def _pairs_of(self, stack: tuple[CornerMaps, CornerMaps]) -> CornerPairs:
        first, second = (best_corners(maps, self.num_corners) for maps in stack)
        return pair_corners(first, second, self.postprocess.topk_candidates, self.max_distance)

    def inference(
        self, predictions: CornerPredictions, image_sizes: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        """Detections in pixels of the network's input.

        Args:
            predictions: of the batch.
            image_sizes: (height, width) without padding, pixels.
        """
        return [self.suppress(*x) for x in zip(image_sizes, self._candidates(predictions))]

    def suppress(self, image_size: tuple[int, int], candidates: Candidates) -> Instances:
        """The detections among the candidates of one image, in pixels of ``image_size``."""
        return self.postprocess.suppress(image_size, candidates)

    def candidates(self, batched_inputs: list[dict[str, Any]]) -> list[Candidates]:
        """What is left to NMS, for each image, in pixels of the network's input."""
        images = self.preprocess_image(batched_inputs)
        outputs = self.outputs(images)
        with torch.autocast(images.tensor.device.type, enabled=False):
            return self._candidates(*outputs)

    def _candidates(self, predictions: CornerPredictions) -> list[Candidates]:
        boxes, scores, classes = self.pairs(predictions)
        thresholds = self.postprocess.thresholds(self.num_classes)
        if isinstance(thresholds, tuple):
            thresholds = to_device(thresholds, scores)[classes]
        passed = scores > thresholds
        images, rows = passed.nonzero(as_tuple=True)
        found = (boxes[images, rows], scores[images, rows], classes[images, rows], rows)
        counts = passed.sum(dim=1).tolist()
        return [Candidates(*x) for x in zip(*(column.split(counts) for column in found))]

    def in_output(
        self, result: Instances, inputs: Mapping[str, Any], image_size: tuple[int, int]
    ) -> Instances:
        """See :func:`gfocal.modeling.sides.in_unpadded_output`; nothing lies left of the image or
        above it."""
        result = in_unpadded_output(result, inputs, image_size)
        result.pred_boxes.tensor.clamp_(min=0)
        return result

    def objects(self, predictions: CornerPredictions, truth: GroundTruth) -> Objects:
        """The objects and their targets, see :func:`gfocal.modeling.corner_losses.objects_of`.

        Raises:
            ValueError: see :func:`gfocal.modeling.ground_truth.check_ground_truth`.
        """
        heat_logits = predictions.stacks[-1][0].heat_logits
        check_ground_truth(truth, len(heat_logits), self.num_classes)
        return objects_of(truth, heat_logits)

    def losses(
        self,
        predictions: CornerPredictions,
        truth: GroundTruth,
        batched_inputs: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Tensor]:
        losses = self.criterion(predictions, self.objects(predictions, truth))
        self.observe(TrainingStep((predictions.detach(),), truth, batched_inputs))
        return losses


class CornerStatistics:
    """Looks at the targets of a batch, over all processes, once in ``period`` iterations: the
    numbers of :class:`gfocal.modeling.statistics.TargetStatistics`. A positive is an object, which
    has two corners on the map. Its predicted box is what the offsets there say."""

    def __init__(self, period: int):
        self.period = period

    @torch.no_grad()
    def __call__(self, detector: CornerNet, step: TrainingStep) -> None:
        if not is_due(self.period):
            return
        (predictions,) = step.outputs
        objects = detector.objects(predictions, step.truth)
        first, second = predictions.stacks[-1]
        offsets = objects.at_corners((first.offsets, second.offsets))
        points = [(x + corner.cells) * STRIDE for x, corner in zip(offsets, objects.corners)]
        ious = aligned_iou(torch.cat(points, dim=1), objects.boxes)
        number = len(objects.boxes)
        counts = [len(step.truth.boxes), sum(step.truth.counts), number, number]
        sums = to_device(counts, ious).double()
        put_target_statistics(torch.cat([sums, ious.sum().double()[None]]))
