"""The detector: a backbone, a head, and the dense core with losses and post-processing."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import ImageList
from torch import nn

from ..backbones import DeformConv2d
from ..modeling.boxes import distances_to_boxes
from ..modeling.contracts import Head, Matcher, PostProcess
from ..modeling.decoded import Decoded, per_level
from ..modeling.dense import DenseCore, Observer
from ..modeling.detector import Detector
from ..modeling.postprocess import Candidates, postprocess_of
from ..modeling.settings import UNSET, ScoreThresh
from ..modeling.statistics import TargetStatistics
from ..modeling.structures import DenseAnchors, DensePredictions
from ..modeling.suppression import Suppression
from ..modeling.yacs_keys import gfl_arguments

__all__ = ["GFL"]


@META_ARCH_REGISTRY.register()
class GFL(Detector, DenseCore):
    """Generalized Focal Loss v1 (https://arxiv.org/abs/2006.04388) and v2
    (https://arxiv.org/abs/2011.12885): a one-stage dense detector.

    The parameters are in ``backbone`` and ``head``. :class:`DenseCore` turns their predictions into
    losses or detections.

    Args:
        backbone: a Detectron2 backbone.
        head: a :class:`GFLHead`, or another module that answers ``DensePredictions`` and has
            ``num_classes``, ``num_levels`` and ``box_representation``.
        head_in_features: names of the backbone's maps given to the head, finest first.
        anchor_generator: a Detectron2 anchor generator with one anchor a location. The released
            models use side 8 * stride and offset 0.0.
        matcher: which locations are positive for which box, called as ``matcher(anchors, truth,
            predictions)``; see matchers.
        criterion: :class:`gfocal.modeling.criterion.GFLCriterion`.
        num_classes: K.
        test_score_thresh: (location, class) pairs that score above it are candidates. A list has
            one for each class; a mapping some, by name or index, and "default" for the others.
        test_topk_candidates: at most so many candidates a level.
        test_nms_thresh: IoU above which NMS drops the lower-scored box of a class.
        max_detections_per_image: at most so many detections.
        test_clip_margin: boxes end so many pixels before the right and the lower margin of the
            image: 1 in FoveaBox, 0 by default.
        suppression: another NMS than the hard one, with its own numbers; see suppression.py.
        class_names: of the K classes, for thresholds by name.
        postprocess: called as ``postprocess(anchors, predictions, image_sizes)``. By default
            :class:`NMSPostProcess` with the arguments above. Another one has its own numbers.
        pixel_mean, pixel_std: per channel, in the order of ``input_format``.
        vis_period: iterations between training pictures in the event storage; 0 for none.
        draw_training: the function that draws them, see
            :class:`gfocal.modeling.observers.TrainingPictures`.
        statistics_period: iterations between looks at the targets, see
            :class:`gfocal.modeling.statistics.TargetStatistics`; 0 for none.
        input_format: order of the data loader's channels, "RGB" or "BGR". The configs' data loaders
            and the Predictor read it here; the model itself only draws with it.
        observers: further observers of training steps, beside those of the two periods; see
            observers.py.
        ignore_padding: see :class:`DenseCore`.

    Raises:
        TypeError: if the head lacks an attribute that is read.
        ValueError: if the parts do not fit together: the head's ``num_classes``, ``num_levels`` or
            box representation, the loss terms, the backbone's features, the anchor generator's
            levels. Also if a setting of the inference is out of its range, or given together with
            a ``postprocess``, which has its own.
    """

    inference = DenseCore.inference
    losses = DenseCore.losses

    yacs_arguments = staticmethod(partial(gfl_arguments, deform_conv=DeformConv2d))

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: Head,
        head_in_features: Sequence[str],
        anchor_generator: nn.Module,
        matcher: Matcher,
        criterion: nn.Module,
        num_classes: int,
        test_score_thresh: ScoreThresh = UNSET,  # those of NMSPostProcess
        test_topk_candidates: int = UNSET,
        test_nms_thresh: float = UNSET,
        max_detections_per_image: int = UNSET,
        test_clip_margin: float = UNSET,
        suppression: Suppression = UNSET,
        class_names: Sequence[str] = UNSET,
        postprocess: PostProcess | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        vis_period: int = 0,
        draw_training: Callable[..., np.ndarray] | str = "gfocal.inspect.draw_training_image",
        statistics_period: int = 20,
        input_format: str = "BGR",
        observers: Sequence[Observer] = (),
        ignore_padding: bool = True,
    ):
        DenseCore.__init__(
            self,
            anchor_generator=anchor_generator,
            matcher=matcher,
            criterion=criterion,
            postprocess=postprocess_of(
                postprocess,
                num_classes,
                test_score_thresh=test_score_thresh,
                test_topk_candidates=test_topk_candidates,
                test_nms_thresh=test_nms_thresh,
                max_detections_per_image=max_detections_per_image,
                test_clip_margin=test_clip_margin,
                suppression=suppression,
                class_names=class_names,
            ),
            num_classes=num_classes,
            observers=[TargetStatistics(statistics_period, head_in_features), *observers],
            ignore_padding=ignore_padding,
        )
        self._set_up(backbone, pixel_mean, pixel_std, input_format, vis_period, draw_training)
        self.head, self.head_in_features = head, list(head_in_features)
        self._check_head_and_levels()

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Returns backbone and head, the parts that have weights."""
        return self.backbone, cast("nn.Module", self.head)

    def cast_networks(self, dtype: torch.dtype) -> None:
        """Lets backbone and head compute in another precision; boxes and scores stay in float32."""
        # The bins of a representation are no weights: not even rounded to dtype and back.
        representation = cast("nn.Module", self.head.box_representation)
        constants = [(m, dict(m.named_buffers(recurse=False))) for m in representation.modules()]
        for network in self.networks():
            network.to(dtype)
        representation.float()
        for module, buffers in constants:
            for name, buffer in buffers.items():
                setattr(module, name, buffer)

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """
        Args:
            batched_inputs: one dict an image, as Detectron2's ``DatasetMapper`` makes them:
                "image" (C, H, W), "instances" with gt_boxes and gt_classes (in training),
                "height" and "width" of the wanted output (in inference). In training a dict may
                have "ignore_regions", ``Boxes`` with no background inside, see
                :func:`gfocal.modeling.matchers.ignore_background_inside`.

        Returns:
            In training the dict of losses; in inference one ``{"instances": Instances}`` an image,
            in pixels of its "height" x "width". Where the box representation has a standard
            deviation they have `pred_box_stds`, see :mod:`gfocal.modeling.sides`.

        Raises:
            ValueError: in training, if an image has no "instances", or its boxes or classes are
                not usable; the message names the image.
            RuntimeError: in inference, under a trace; see
                :func:`gfocal.modeling.dense.refuse_to_be_traced`.
        """
        return super().forward(batched_inputs)

    def predict(self, images: torch.Tensor) -> tuple[DenseAnchors, DensePredictions]:
        features = self.features(images)
        return self.anchors(features), self.predictions(features)

    @property
    def box_representation(self) -> Any:
        return self.head.box_representation

    def raw(self, images: torch.Tensor, *, stds: bool = False) -> dict[str, torch.Tensor]:
        """The logits of each level.

        Args:
            images: see :meth:`features`.
            stds: also the standard deviations of the sides.

        Returns:
            For each name p of ``head_in_features``: ``cls_logits_p`` (N, H*W, K), then
            ``box_logits_p`` (N, H*W, 4, C), then ``quality_logits_p`` (N, H*W, 1), if there are
            any, then ``stds_p`` (N, H*W, 4) in strides. Rows of the map come first.
        """
        features = self.features(images)
        predictions = self.predictions(features)
        kinds = dict(zip(("cls_logits", "box_logits", "quality_logits"), predictions.tensors))
        if stds:
            kinds["stds"] = self.box_representation.std(predictions.box_logits)
        sizes = [x.shape[-2] * x.shape[-1] for x in features]
        return {
            f"{kind}_{name}": level
            for kind, x in kinds.items()
            for name, level in zip(self.head_in_features, per_level(x, sizes))
        }

    def decode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (N, R, 4), XYXY pixels, not clipped, and scores (N, R, K) of all locations."""
        decoded = self.decode_levels(images)
        return decoded.boxes, decoded.scores

    def decode_levels(self, images: torch.Tensor) -> Decoded:
        features = self.features(images)
        shapes = [(x.shape[-2], x.shape[-1]) for x in features]
        predictions = self.predictions(features)
        box_logits = predictions.box_logits
        centers, strides = self.locations(shapes, images)
        boxes = distances_to_boxes(centers, predictions.distances_of(box_logits) * strides)

        def stds(*places: torch.Tensor) -> torch.Tensor:
            logits, scale = (
                (box_logits[places], strides[places[1]]) if places else (box_logits, strides)
            )
            return self.box_representation.std(logits) * scale

        return Decoded(
            boxes,
            predictions.joint_logits().sigmoid(),
            [height * width for height, width in shapes],
            stds if hasattr(self.box_representation, "std") else None,
        )

    def check_decode(self) -> None:
        self.check_locations()

    def candidates(self, batched_inputs: list[dict[str, Any]]) -> list[Candidates]:
        """What is left to NMS, for each image, in pixels of the network's input; see
        :meth:`~gfocal.modeling.dense.DenseCore.dense_candidates`."""
        images, anchors, predictions = self.forward_dense(batched_inputs)
        return self.dense_candidates(anchors, predictions, images.image_sizes)

    def forward_dense(
        self, batched_inputs: list[dict[str, Any]]
    ) -> tuple[ImageList, DenseAnchors, DensePredictions]:
        """The network's predictions at every location, before matching or post-processing."""
        images = self.preprocess_image(batched_inputs)
        return images, *self.predict(images.tensor)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps that the head sees, finest first. With :meth:`predictions`, which takes them,
        this is the network: tensors to tensors, whatever is on the images.

        Args:
            images: (N, C, H, W), normalized; H and W multiples of the backbone's divisibility.

        Returns:
            (N, F, H_i, W_i) for each of ``head_in_features``.
        """
        maps = self.backbone(images.to(next(self.backbone.parameters()).dtype))
        return [maps[name] for name in self.head_in_features]

    def predictions(self, features: Sequence[torch.Tensor]) -> DensePredictions:
        """What the head says of the maps of :meth:`features`."""
        predictions = self.head(features)
        if predictions.box_representation is None:
            predictions = predictions._replace(box_representation=self.head.box_representation)
        return predictions

    def _check_head_and_levels(self) -> None:
        self.check_head(self.head)
        names, shapes = self.head_in_features, self.backbone.output_shape()
        if self.head.num_levels != len(names):
            raise ValueError(
                f"the head has {self.head.num_levels} levels, head_in_features are {names}"
            )
        missing = [name for name in names if name not in shapes]
        if missing:
            raise ValueError(f"head_in_features {missing} are not among {sorted(shapes)}")
        expected = [shapes[x].stride for x in names]
        if self.strides != expected:
            raise ValueError(
                f"anchor_generator has strides {self.strides}; expected those of "
                f"head_in_features {names}: {expected}"
            )
