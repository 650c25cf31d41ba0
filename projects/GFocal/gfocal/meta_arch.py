"""The detector: wires backbone, head, anchors, matcher and criterion."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, detector_postprocess
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from . import recipes
from .head import GFLHead
from .matcher import ignore_background_inside
from .postprocess import detections
from .statistics import TargetStatistics
from .structures import DenseAnchors, DensePredictions, DenseTargets

__all__ = ["GFL"]


@META_ARCH_REGISTRY.register()
class GFL(nn.Module):
    """Generalized Focal Loss v1 (https://arxiv.org/abs/2006.04388) and v2
    (https://arxiv.org/abs/2011.12885): a one-stage dense detector.

    Args:
        backbone: a Detectron2 backbone.
        head: a :class:`GFLHead` or what answers ``DensePredictions`` and has ``num_classes``,
            ``num_levels`` and ``box_representation``.
        head_in_features: names of the backbone's maps given to the head, finest first.
        anchor_generator: a Detectron2 anchor generator with one anchor a location. The released
            models use side 8 * stride and offset 0.0.
        matcher: which locations learn which box, called as ``matcher(anchors, gt_boxes,
            image_sizes)``; see matcher.py.
        criterion: :class:`GFLCriterion`.
        num_classes: K.
        test_score_thresh: (location, class) pairs that score above it are candidates.
        test_topk_candidates: at most so many candidates a level.
        test_nms_thresh: IoU above which NMS drops the lower-scored box of a class.
        max_detections_per_image: at most so many detections.
        pixel_mean, pixel_std: per channel, in the order of ``input_format``.
        vis_period: iterations between training pictures in the event storage; 0 for none.
        statistics_period: iterations between looks at the targets, see
            :class:`gfocal.statistics.TargetStatistics`; 0 for none.
        input_format: order of the channels the data loader delivers, "RGB" or "BGR". The configs'
            data loaders and the Predictor read it here; the model itself only draws with it.

    Raises:
        ValueError: if the head's ``num_classes`` or ``num_levels`` disagree with the detector's, if
            the backbone has no such feature, or if the anchor generator's levels are not those of
            ``head_in_features``.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        head: nn.Module,
        head_in_features: Sequence[str],
        anchor_generator: nn.Module,
        matcher,
        criterion: nn.Module,
        num_classes: int,
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.6,
        max_detections_per_image: int = 100,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        vis_period: int = 0,
        statistics_period: int = 20,
        input_format: str = "BGR",
    ):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.head_in_features = list(head_in_features)
        self.anchor_generator = anchor_generator
        # Detectron2 0.5 would keep these constants in the state dict; later versions do not.
        for anchors in anchor_generator.children():
            for name, buffer in list(anchors.named_buffers()):
                anchors.register_buffer(name, buffer, persistent=False)
        self.matcher = matcher
        self.criterion = criterion
        self.num_classes = num_classes
        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image
        self.vis_period = vis_period
        self.statistics = TargetStatistics(statistics_period, self.head_in_features)
        self.input_format = input_format
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)).view(-1, 1, 1), False)

        if head.num_classes != num_classes:
            raise ValueError(f"the head has {head.num_classes} classes, the detector {num_classes}")
        if head.num_levels != len(self.head_in_features):
            raise ValueError(
                f"the head has {head.num_levels} levels, head_in_features are "
                f"{self.head_in_features}"
            )
        shapes = backbone.output_shape()
        missing = [name for name in self.head_in_features if name not in shapes]
        if missing:
            raise ValueError(f"head_in_features {missing} are not among {sorted(shapes)}")
        self.strides = [shapes[name].stride for name in self.head_in_features]
        if list(anchor_generator.strides) != self.strides:
            raise ValueError(
                f"anchor_generator has strides {list(anchor_generator.strides)}; expected those of "
                f"head_in_features {self.head_in_features}: {self.strides}"
            )

    @classmethod
    def from_config(cls, cfg) -> dict[str, Any]:
        """The yacs way in; see config.py for the keys."""
        gfl = cfg.MODEL.GFL
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        missing = [name for name in gfl.IN_FEATURES if name not in shapes]
        if missing:
            raise ValueError(
                f"MODEL.GFL.IN_FEATURES has {missing}; expected maps of the backbone: "
                f"{sorted(shapes)}"
            )
        shapes = [shapes[name] for name in gfl.IN_FEATURES]
        parts = recipes.from_yacs(gfl)
        return {
            "backbone": backbone,
            "head": GFLHead(
                in_channels=shapes[0].channels,
                num_levels=len(shapes),
                num_classes=gfl.NUM_CLASSES,
                conv_dims=[gfl.CONV_DIM] * gfl.NUM_CONVS,
                box_representation=parts["box_representation"],
                quality_predictor=parts["quality_predictor"],
                norm=gfl.NORM,
                prior_prob=gfl.PRIOR_PROB,
            ),
            "head_in_features": gfl.IN_FEATURES,
            "anchor_generator": DefaultAnchorGenerator(
                sizes=[[gfl.ANCHOR_SCALE * shape.stride] for shape in shapes],
                aspect_ratios=[1.0],
                strides=[shape.stride for shape in shapes],
                offset=gfl.ANCHOR_OFFSET,
            ),
            "matcher": parts["matcher"],
            "criterion": parts["criterion"],
            "num_classes": gfl.NUM_CLASSES,
            "test_score_thresh": gfl.SCORE_THRESH_TEST,
            "test_topk_candidates": gfl.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": gfl.NMS_THRESH_TEST,
            "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "vis_period": cfg.VIS_PERIOD,
            "statistics_period": gfl.STATISTICS_PERIOD,
            "input_format": cfg.INPUT.FORMAT,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Returns backbone and head, the parts that have weights."""
        return self.backbone, self.head

    def cast_networks(self, dtype: torch.dtype) -> None:
        """Lets backbone and head compute in a precision; boxes and scores stay in float32."""
        for network in self.networks():
            network.to(dtype)
        self.head.box_representation.float()  # its bins are no weights

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """
        Args:
            batched_inputs: one dict an image, as Detectron2's ``DatasetMapper`` makes them:
                "image" (C, H, W), "instances" with gt_boxes and gt_classes (in training),
                "height" and "width" of the wanted output (in inference). Optional in training are
                "ignore_regions", ``Boxes`` in which there is no background, see
                :func:`gfocal.matcher.ignore_background_inside`.

        Returns:
            In training the dict of losses; in inference one ``{"instances": Instances}`` an image,
            in pixels of its "height" x "width".

        Raises:
            ValueError: in training, if an image has no "instances", or its boxes or classes are
                not usable; the message names the image.
        """
        images, anchors, predictions = self.forward_dense(batched_inputs)
        with torch.autocast(self.device.type, enabled=False):
            if self.training:
                return self._losses(batched_inputs, images, anchors, predictions)
            results = self.inference(anchors, predictions, images.image_sizes)
        return [
            {
                "instances": detector_postprocess(
                    result, inputs.get("height", size[0]), inputs.get("width", size[1])
                )
            }
            for result, inputs, size in zip(results, batched_inputs, images.image_sizes)
        ]

    def forward_dense(
        self, batched_inputs: list[dict[str, Any]]
    ) -> tuple[ImageList, DenseAnchors, DensePredictions]:
        """What the network says at every location, before matching or post-processing."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor.to(next(self.backbone.parameters()).dtype))
        features = [features[name] for name in self.head_in_features]
        anchors = DenseAnchors.from_levels(
            self.anchor_generator(features), [f.shape[-2:] for f in features], self.strides
        )
        return images, anchors, self.head(features)

    def inference(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Detections in pixels of the network's input, see :func:`postprocess.detections`."""
        return detections(
            anchors,
            predictions,
            image_sizes,
            self.head.box_representation,
            score_thresh=self.test_score_thresh,
            topk_candidates=self.test_topk_candidates,
            nms_thresh=self.test_nms_thresh,
            max_detections=self.max_detections_per_image,
        )

    @torch.no_grad()
    def label_anchors(
        self,
        anchors: DenseAnchors,
        gt_instances: Sequence[Instances],
        image_sizes: Sequence[tuple[int, int]],
        ignore_regions: Sequence[Boxes | None] = (),
    ) -> DenseTargets:
        """What every location should say. Ignored are locations on the padding of the batch, beyond
        an image's own size rounded up to the backbone's size divisibility, and those in
        ``ignore_regions`` that no box claims."""
        divisor = max(self.backbone.size_divisibility, 1)
        sizes = [tuple(-(-int(s) // divisor) * divisor for s in size) for size in image_sizes]
        gt_boxes = [copy.copy(x.gt_boxes) for x in gt_instances]
        for boxes in gt_boxes:  # Boxes.to would wait for a GPU
            boxes.tensor = boxes.tensor.to(self.device, non_blocking=True)
        gt_classes = [x.gt_classes.to(self.device, non_blocking=True) for x in gt_instances]
        matched_idxs = ignore_background_inside(
            self.matcher(anchors, gt_boxes, sizes), anchors, ignore_regions
        )
        return DenseTargets.from_matches(matched_idxs, gt_boxes, gt_classes, self.num_classes)

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalize, pad to one size and batch."""
        images = [x["image"].to(self.device, non_blocking=True) for x in batched_inputs]
        images = [(x - self.pixel_mean) / self.pixel_std for x in images]
        return ImageList.from_tensors(images, self.backbone.size_divisibility)

    def _losses(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        anchors: DenseAnchors,
        predictions: DensePredictions,
    ) -> dict[str, Tensor]:
        gt_instances = [
            _checked_ground_truth(i, x, self.num_classes) for i, x in enumerate(batched_inputs)
        ]
        regions = [_checked_regions(i, x) for i, x in enumerate(batched_inputs)]
        targets = self.label_anchors(anchors, gt_instances, images.image_sizes, regions)
        losses = self.criterion(anchors, predictions, targets, self.head.box_representation)
        if self.statistics.is_due():
            self.statistics.put(
                anchors,
                predictions,
                targets,
                self.head.box_representation,
                [len(x) for x in gt_instances],
            )
        if self.vis_period > 0:
            storage = get_event_storage()
            if storage.iter % self.vis_period == 0:
                with torch.no_grad():  # of the first image only
                    (result,) = self.inference(anchors, predictions, images.image_sizes[:1])
                self._visualize_training(storage, batched_inputs[0], result)
        return losses

    def _visualize_training(self, storage, inputs: dict[str, Any], result: Instances) -> None:
        from .visualization import draw_training_image

        picture = draw_training_image(inputs, result, self.input_format)
        storage.put_image("ground truth (top), detections (bottom)", picture.transpose(2, 0, 1))


def _name(index: int, inputs: dict[str, Any]) -> str:
    return f"image {inputs.get('image_id', index)} ({inputs.get('file_name', 'no file name')})"


def _checked_regions(index: int, inputs: dict[str, Any]) -> Boxes | None:
    """The regions without background of one image; None for none."""
    regions = inputs.get("ignore_regions")
    if regions is None:
        return None
    if not isinstance(regions, Boxes):
        raise TypeError(
            f'{_name(index, inputs)} has "ignore_regions" of type {type(regions).__name__}; '
            "expected Boxes"
        )
    bad = ~torch.isfinite(regions.tensor).all(dim=1)
    if bad.any():
        raise ValueError(
            f"{_name(index, inputs)} has a box {regions.tensor[bad][0].tolist()} in its "
            '"ignore_regions"; expected finite XYXY pixels'
        )
    return regions


def _checked_ground_truth(index: int, inputs: dict[str, Any], num_classes: int) -> Instances:
    """The instances of one image; they usually still lie on the CPU, where looking is free."""
    where = _name(index, inputs)
    instances = inputs.get("instances")
    if instances is None or not (instances.has("gt_boxes") and instances.has("gt_classes")):
        raise ValueError(f'{where} has no "instances" with gt_boxes and gt_classes to train on')
    boxes: Boxes = instances.gt_boxes
    bad = ~torch.isfinite(boxes.tensor).all(dim=1) | ~boxes.nonempty()
    if bad.any():
        box = boxes.tensor[bad][0].tolist()
        raise ValueError(
            f"{where} has a degenerate box {box}; expected finite XYXY pixels, x1 > x0, y1 > y0"
        )
    classes = instances.gt_classes
    bad = (classes < 0) | (classes >= num_classes)
    if bad.any():
        raise ValueError(
            f"{where} has class {int(classes[bad][0])}; expected 0..{num_classes - 1}, as "
            f"num_classes is {num_classes}"
        )
    return instances
