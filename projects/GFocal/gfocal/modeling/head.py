"""The head: two towers of convolutions shared by all levels, and their flattened outputs.

References: Generalized Focal Loss (https://arxiv.org/abs/2006.04388), V2
(https://arxiv.org/abs/2011.12885).
"""

import math
from collections.abc import Mapping, Sequence

import torch
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import Tensor, nn
from torch.nn import functional as F

from .numerics import at_least_float32
from .quality import QualityPredictor
from .representations import BoxRepresentation
from .settings import PROBABILITY, check_setting
from .structures import DensePredictions

__all__ = ["GFLHead", "check_channels_between"]


class GFLHead(nn.Module):
    """Predicts class logits, box channels and (with a predictor) quality at every location.

    Args:
        in_channels: channels of every input level.
        num_levels: number of levels.
        num_classes: K.
        conv_dims: channels of the 3x3 convolutions of each tower, e.g. ``[256] * 4``.
        box_representation: reads the box channels, e.g. ``GeneralDistribution(reg_max=16)``.
        quality_predictor: ``NoQuality()`` for GFLV1, DGQP for GFLV2.
        norm: normalisation of the towers, as ``detectron2.layers.get_norm`` takes it. "BN" shares
            its statistics between levels; prefer "GN". ("GN" has 32 groups. With 32 channels, each
            group is one channel, and on a map of 1 x 1 it becomes 0.)
        prior_prob: class score that an untrained head gives to everything.
        level_scales: each level has its own trained scale of the box channels.
        cls_convs: (channels, kernel size) of each convolution of the class tower, if they are not
            those of ``conv_dims``.
        feature_align: moves the features of the class tower to the boxes, e.g.
            :class:`gfocal.modeling.feature_align.FeatureAlign`; called as ``feature_align(features
            (N, F, H, W), box channels (N, 4 * C, H, W))``. None: there is none.

    Raises:
        ValueError: if ``num_classes`` or ``num_levels`` is less than 1, ``conv_dims`` is empty,
            ``prior_prob`` is not strictly between 0 and 1, or the box representation has too few
            channels for the quality predictor, or another number than ``feature_align`` reads.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_levels: int,
        num_classes: int,
        conv_dims: Sequence[int],
        box_representation: BoxRepresentation,
        quality_predictor: QualityPredictor,
        norm: str = "GN",
        prior_prob: float = 0.01,
        level_scales: bool = True,
        cls_convs: Sequence[tuple[int, int]] | None = None,
        feature_align: nn.Module | None = None,
    ):
        super().__init__()
        _check(num_classes, num_levels, conv_dims, prior_prob)
        for part in (quality_predictor, feature_align):
            check_num_channels = getattr(part, "check_num_channels", None)
            if check_num_channels is not None:
                check_num_channels(box_representation.num_channels)
        self.num_levels = num_levels
        self.num_classes = num_classes
        self.box_representation = box_representation
        self.quality_predictor = quality_predictor
        self.feature_align = feature_align

        box_convs = [(width, 3) for width in conv_dims]
        cls_convs = cls_convs or box_convs
        self.cls_tower = _tower(in_channels, cls_convs, norm)
        self.box_tower = _tower(in_channels, box_convs, norm)
        self.cls_logits = nn.Conv2d(cls_convs[-1][0], num_classes, 3, padding=1)
        self.box_logits = nn.Conv2d(
            conv_dims[-1], 4 * box_representation.num_channels, 3, padding=1
        )
        self.scales = nn.ParameterList(
            nn.Parameter(torch.ones(())) for _ in range(num_levels if level_scales else 0)
        )
        for part in (self.cls_tower, self.box_tower, self.cls_logits, self.box_logits):
            _initialise(part)
        prior = math.log(prior_prob / (1 - prior_prob))
        nn.init.constant_(self.cls_logits.get_parameter("bias"), prior)

    def forward(self, features: Sequence[Tensor]) -> DensePredictions:
        """
        Args:
            features: ``num_levels`` maps (N, in_channels, H_i, W_i), finest first.

        Raises:
            ValueError: if there are not ``num_levels`` of them.
        """
        if len(features) != self.num_levels:
            raise ValueError(
                f"got {len(features)} feature maps; this head has {self.num_levels} levels"
            )
        cls_logits: list[Tensor] = []
        box_logits: list[Tensor] = []
        quality_logits: list[Tensor] = []
        for level, feature in enumerate(features):
            box_features = self.box_tower(feature)
            box_map = self.box_logits(box_features)
            if len(self.scales):
                box_map = self.scales[level] * box_map
            boxes = _flatten(box_map).unflatten(-1, (4, -1))
            if self.feature_align is not None:
                feature = self.feature_align(feature, box_map)
            cls_logits.append(_flatten(self.cls_logits(self.cls_tower(feature))))
            box_logits.append(boxes)
            quality = self.quality_predictor(box_features, boxes)
            if quality is not None:
                quality_logits.append(at_least_float32(quality))
        return DensePredictions(
            cls_logits=torch.cat(cls_logits, dim=1),
            box_logits=torch.cat(box_logits, dim=1),
            quality_logits=torch.cat(quality_logits, dim=1) if quality_logits else None,
            box_representation=self.box_representation,
        )


def check_channels_between(in_channels: int, name: str, shapes: Mapping[str, ShapeSpec]) -> None:
    """Refuses a head that was made for another map.

    Args:
        in_channels: of the head.
        name: of the map that it gets.
        shapes: of the backbone's maps.

    Raises:
        ValueError: the map has another number of channels.
    """
    channels = shapes[name].channels
    if in_channels != channels:
        raise ValueError(
            f"model.head.in_channels is {in_channels}; the backbone's map {name!r} has {channels}"
        )


def _check(num_classes: int, num_levels: int, conv_dims: Sequence[int], prior_prob: float) -> None:
    if num_classes < 1 or num_levels < 1:
        raise ValueError(
            f"num_classes is {num_classes} and num_levels {num_levels}; expected at least 1"
        )
    if len(conv_dims) == 0:
        raise ValueError("conv_dims is empty; expected the width of at least one convolution")
    check_setting("prior_prob", prior_prob, PROBABILITY)


def _initialise(part: nn.Module) -> None:
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _tower(in_channels: int, convs: Sequence[tuple[int, int]], norm: str) -> nn.Sequential:
    layers = []
    for out_channels, kernel_size in convs:
        layers.append(
            Conv2d(
                in_channels,
                out_channels,
                kernel_size=kernel_size,
                padding=kernel_size // 2,
                bias=not norm,
                norm=get_norm(norm, out_channels),
                activation=F.relu_,
            )
        )
        in_channels = out_channels
    return nn.Sequential(*layers)


def _flatten(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H*W, C) in at least float32."""
    return at_least_float32(x.flatten(start_dim=2).transpose(1, 2))
