"""CenterNet: an object is a point, the centre of its box (https://arxiv.org/abs/1904.07850).

A map at stride 4 has a heat map for each class, whose peaks are the detections, and at each cell
what :mod:`gfocal.modeling.centers` reads the box from. There are no anchors and no NMS.

N images, K classes, G objects of the batch, C channels of the box reading. A map has H x W cells;
places in it are (x, y).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from torch import Tensor, nn

from ..modeling.boxes import aligned_iou
from ..modeling.cells import Centers, cell_anchors, cells_of, centers_of, valid_background
from ..modeling.centers import BoxReading, CenterNetHead, CenterNetPredictions, HeatInputs
from ..modeling.decoded import Decoded
from ..modeling.detector import Detector
from ..modeling.ground_truth import check_ground_truth
from ..modeling.head import check_channels_between
from ..modeling.heatmaps import corner_radius, heatmap_peaks, paint_gaussians
from ..modeling.numerics import at_least_float32
from ..modeling.observers import TrainingStep
from ..modeling.settings import FLAG, check_setting
from ..modeling.sides import check_distributions, in_unpadded_output
from ..modeling.statistics import CenterStatistics
from ..modeling.structures import DensePredictions, GroundTruth
from ..modeling.yacs_centernet import centernet_arguments
from ..process.sums import sum_over_workers

__all__ = ["CenterNet"]


@META_ARCH_REGISTRY.register()
class CenterNet(Detector):
    """CenterNet, objects as points.

    The losses are those of the box reading and ``loss_center_heatmap``. All sums are divided by
    the number of objects' peaks, a mean over the processes, but by at least 1 in all of them
    together. An object whose centre is not on the padded image has no cell. Padding is background.

    Detections are neither clipped to the image, nor dropped if they have no area. With a box
    reading that has a standard deviation they have `pred_box_stds`, see
    :mod:`gfocal.modeling.sides`.

    Args:
        in_feature: the backbone's map that the head sees.
        head: a :class:`CenterNetHead`.
        box: the box reading, see :mod:`gfocal.modeling.centers`.
        heat_loss: a heat loss, see there.
        radius: ``(widths, heights)`` of boxes in cells -> radii of their Gaussians, which are
            rounded down. :func:`gfocal.modeling.heatmaps.centernet_radius` is the one of
            CenterNet's own code.
        test_flip: predict the mirrored image too, and take both together.
        statistics_period: iterations between looks at the targets: positives_per_image,
            boxes_without_positive and mean_iou_of_positives of
            :class:`gfocal.modeling.statistics.TargetStatistics`; 0 for none.
        shared: see :class:`gfocal.modeling.detector.Detector`. The backbone is e.g. a
            :class:`gfocal.backbones.DeconvolutionNeck`. By default the 100 best peaks are
            detections, without NMS.

    Raises:
        ValueError: the parts do not fit together, or a setting is out of its range.
        TypeError: a ``postprocess`` of another kind.
    """

    clips_boxes = False

    yacs_arguments = staticmethod(centernet_arguments)

    @configurable
    def __init__(
        self,
        *,
        head: CenterNetHead,
        box: BoxReading,
        heat_loss: nn.Module,
        in_feature: str = "p2",
        radius: Callable[[Tensor, Tensor], Tensor] = corner_radius,
        test_flip: bool = False,
        statistics_period: int = 20,
        **shared: Any,
    ):
        super().__init__(**shared)
        self.observers.insert(0, CenterStatistics(statistics_period))
        check_setting("test_flip", test_flip, FLAG)
        self.in_feature, self.head, self.box, self.heat_loss = in_feature, head, box, heat_loss
        self.radius, self.test_flip = radius, test_flip
        self._check_parts()

    def published(self) -> dict[str, Any]:
        """The 100 best peaks, whatever they score."""
        return {
            "test_score_thresh": 0.0,
            "test_topk_candidates": 100,
            "test_nms_thresh": 1.0,  # no IoU is above it
            "max_detections_per_image": 100,
        }

    def _check_parts(self) -> None:
        shapes, head = self.backbone.output_shape(), self.head
        if self.in_feature not in shapes:
            raise ValueError(f"in_feature {self.in_feature!r} is not among {sorted(shapes)}")
        self.stride: int = shapes[self.in_feature].stride
        check_channels_between(head.in_channels, self.in_feature, shapes)
        if head.num_classes != self.num_classes:
            raise ValueError(
                f"the head has {head.num_classes} classes, the detector {self.num_classes}"
            )
        if head.num_channels != dict(self.box.branches):
            raise ValueError(
                f"the head has the branches {head.num_channels} beside the heat map; the box "
                f"reading {type(self.box).__name__} expects {dict(self.box.branches)}"
            )
        if self.postprocess.distributions:
            check_distributions(self.box_representation)

    @property
    def box_representation(self) -> Any:  # type: ignore[override]
        return self.box.representation

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Returns backbone and head, the parts that have weights."""
        return self.backbone, self.head

    def raw(self, images: Tensor, *, stds: bool = False) -> dict[str, Tensor]:
        """What the head's branches answer: "heatmap" (N, K, H, W), logits, and the outputs of the
        box reading.

        Args:
            images: (N, C, H, W), normalized and padded.
            stds: also "stds" (N, H * W, 4), standard deviations of the sides, cells.
        """
        features = self.backbone(images.to(next(self.backbone.parameters()).dtype))
        outputs = self.head(features[self.in_feature])
        if stds:
            rows = outputs["sides"].flatten(2).transpose(1, 2)
            outputs["stds"] = self.box_representation.std(self.box.logits(rows))
        return outputs

    def predict(self, images: Tensor) -> tuple[CenterNetPredictions]:
        predictions = self._predictions(images)
        if self.test_flip and not self.training:
            mirrored = self._predictions(images.flip(-1))
            heats = [predictions.heat_logits, mirrored.heat_logits.flip(-1)]
            predictions = CenterNetPredictions(
                torch.stack([x.sigmoid() for x in heats]).mean(dim=0).logit(),
                self.box.merged(predictions.channels, mirrored.channels.flip(-1)),
            )
        return (predictions,)

    def _predictions(self, images: Tensor) -> CenterNetPredictions:
        outputs = {name: at_least_float32(x) for name, x in self.raw(images).items()}
        return CenterNetPredictions(
            outputs["heatmap"], torch.cat([outputs[name] for name in self.box.branches], dim=1)
        )

    @torch.no_grad()
    def centers(self, truth: GroundTruth, predictions: CenterNetPredictions) -> Centers:
        """The objects of a batch, by their cells in its predictions.

        Raises:
            ValueError: see :func:`gfocal.modeling.ground_truth.check_ground_truth`.
        """
        check_ground_truth(truth, len(predictions.heat_logits), self.num_classes)
        return centers_of(truth, predictions.heat_logits.shape[-2:], self.stride)

    def losses(
        self,
        predictions: CenterNetPredictions,
        truth: GroundTruth,
        batched_inputs: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Tensor]:
        logits, channels = predictions
        centers = self.centers(truth, predictions)
        objects = centers.image_idxs, centers.classes, centers.cells
        radii = self.radius(*centers.sizes).long()
        heatmaps = paint_gaussians(logits.shape, *objects, radii, logits.dtype)
        picked, ious = self.picked(channels, centers)
        owns, peaks = centers.owns_cell, centers.owns_peak
        total, workers = sum_over_workers(peaks.sum().to(logits.dtype))
        num_objects = total.clamp(min=1) / workers
        columns, rows = centers.cells[peaks].unbind(dim=1)
        places = centers.image_idxs[peaks], centers.classes[peaks], rows, columns
        valid = valid_background(truth, centers, logits.shape[-2:], self.stride)
        inputs = HeatInputs(logits, heatmaps, places, ious[peaks], valid)
        losses = {"loss_center_heatmap": self.heat_loss(inputs) / num_objects}
        cells, boxes = centers.cells[owns], centers.boxes[owns].to(channels.dtype)
        losses |= self.box.losses(picked[owns], cells, boxes, num_objects)
        self.observe(TrainingStep((predictions.detach(),), truth, batched_inputs))
        return losses

    def picked(self, channels: Tensor, centers: Centers) -> tuple[Tensor, Tensor]:
        """The channels (G, C) at the objects' cells, and the IoU (G,) of each box there with the
        object's own, detached."""
        columns, rows = centers.cells.unbind(dim=1)
        picked = channels[centers.image_idxs, :, rows, columns]
        return picked, aligned_iou(self.box.decode(picked.detach(), centers.cells), centers.boxes)

    def inference(
        self, predictions: CenterNetPredictions, image_sizes: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        """Detections in pixels of the network's input, see the post-processing.

        Args:
            predictions: of the batch.
            image_sizes: (height, width) without padding, pixels.
        """
        channels = predictions.channels
        height, width = channels.shape[-2:]
        cells = cells_of(height, width, channels.device)

        def decode(images: Tensor, locations: Tensor) -> Tensor:
            found = channels.flatten(2)[images, :, locations]
            return self.box.decode(found, cells[locations]) * self.stride

        results = self.postprocess.of_scores(
            _scores(predictions), [height * width], decode, image_sizes, clip=False
        )
        if self.box_representation is not None:
            heats, rows = (x.flatten(2).transpose(1, 2) for x in predictions)
            dense = DensePredictions(heats, self.box.logits(rows), None, self.box_representation)
            anchors = cell_anchors((height, width), self.stride, channels.device)
            self.postprocess.set_sides(results, anchors, dense)
        return results

    def decode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, R, 4), XYXY pixels, not clipped, and scores (N, R, K) of all cells; 0 off the
        peaks.

        Args:
            images: (N, C, H, W), normalized and padded.
        """
        decoded = self.decode_levels(images)
        return decoded.boxes, decoded.scores

    def decode_levels(self, images: Tensor) -> Decoded:
        (predictions,) = self.predict(images)
        channels = predictions.channels
        height, width = channels.shape[-2], channels.shape[-1]
        cells, rows = cells_of(height, width, images.device), channels.flatten(2).transpose(1, 2)

        def stds(*places: Tensor) -> Tensor:
            logits = self.box.logits(rows[places] if places else rows)
            return self.box_representation.std(logits) * self.stride

        return Decoded(
            self.box.decode(rows, cells) * self.stride,
            _scores(predictions),
            [height * width],
            None if self.box_representation is None else stds,
        )

    def in_output(
        self, result: Instances, inputs: Mapping[str, Any], image_size: tuple[int, int]
    ) -> Instances:
        """See :func:`gfocal.modeling.sides.in_unpadded_output`."""
        return in_unpadded_output(result, inputs, image_size)


def _scores(predictions: CenterNetPredictions) -> Tensor:
    """(N, R, K) of all cells; 0 off the peaks."""
    return heatmap_peaks(predictions.heat_logits.sigmoid()).flatten(2).transpose(1, 2)
