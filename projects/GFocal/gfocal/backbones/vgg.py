"""VGG-16 as SSD has it, and the pyramid of maps that SSD sees.

Sources: SSD (https://arxiv.org/abs/1512.02325), Sec. 2.1 and 3; VGG
(https://arxiv.org/abs/1409.1556), configuration D; the L2 norm of ParseNet
(https://arxiv.org/abs/1506.04579), Sec. 3.3.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SSD_LEVELS", "VGG16", "L2Norm", "Levels", "SSDPyramid", "build_ssd_backbone"]

# Convolutions and width (in widths of the first block) of VGG-16's five blocks.
_BLOCKS = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))
_FROM_BELOW = ("conv4_3", "conv7")


class Levels(NamedTuple):
    """The levels of a published SSD, as :class:`SSDPyramid` takes them."""

    extra_levels: tuple[tuple[int, int, int, int], ...]
    strides: tuple[int, ...]


# By the side of the input, pixels.
SSD_LEVELS = {
    300: Levels(
        extra_levels=((512, 3, 2, 1), (256, 3, 2, 1), (256, 3, 1, 0), (256, 3, 1, 0)),
        strides=(8, 16, 32, 64, 100, 300),
    ),
    512: Levels(
        extra_levels=((512, 3, 2, 1), *[(256, 3, 2, 1)] * 3, (256, 4, 1, 1)),
        strides=(8, 16, 32, 64, 128, 256, 512),
    ),
}


class VGG16(Backbone):
    """The convolutions of VGG-16, with its two large linear layers as the convolutions conv6 and
    conv7: 3x3 with dilation 6, and 1x1. The fifth pooling keeps the size; the others round up.

    Args:
        width: channels of the first block, 64 in VGG-16; the others follow (2, 4, 8 and 8 times as
            wide, conv6 and conv7 16 times).
        in_channels: of the images.
        norm: after each convolution, as ``detectron2.layers.get_norm`` takes it; VGG-16 has none.
        freeze_at: the first blocks that stay as they are, 0 to 5. Their batch norms become frozen
            ones, as in Detectron2's ResNet.

    Raises:
        ValueError: for another number of blocks, or a width below 1.
    """

    def __init__(
        self, *, width: int = 64, in_channels: int = 3, norm: str = "", freeze_at: int = 0
    ):
        super().__init__()
        if not 0 <= freeze_at <= len(_BLOCKS) or width < 1:
            raise ValueError(
                f"VGG16 got freeze_at {freeze_at} and width {width}; expected 0 to {len(_BLOCKS)} "
                "blocks and at least 1 channel"
            )
        channels, frozen = in_channels, []
        for block, (convs, widths) in enumerate(_BLOCKS, start=1):
            for index in range(1, convs + 1):
                conv = _conv(channels, width * widths, norm, kernel_size=3, padding=1)
                self.add_module(f"conv{block}_{index}", conv)
                channels = width * widths
                frozen += [conv] if block <= freeze_at else []
        self.conv6 = _conv(channels, 16 * width, norm, kernel_size=3, padding=6, dilation=6)
        self.conv7 = _conv(16 * width, 16 * width, norm, kernel_size=1)
        self._shapes = {
            "conv4_3": ShapeSpec(channels=8 * width, stride=8),
            "conv7": ShapeSpec(channels=16 * width, stride=16),
        }
        for conv in frozen:
            for parameter in conv.parameters():
                parameter.requires_grad = False
            FrozenBatchNorm2d.convert_frozen_batchnorm(conv)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) -> "conv4_3" of stride 8 and "conv7" of stride 16, both after their ReLU."""
        maps = {}
        for block, (convs, _) in enumerate(_BLOCKS, start=1):
            for index in range(1, convs + 1):
                x = getattr(self, f"conv{block}_{index}")(x)
            if block == 4:
                maps["conv4_3"] = x
            if block < len(_BLOCKS):
                x = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)
        x = F.max_pool2d(x, kernel_size=3, stride=1, padding=1)
        maps["conv7"] = self.conv7(self.conv6(x))
        return maps

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)


class L2Norm(nn.Module):
    """Each location's channels divided by their length, times a learned factor a channel.

    conv4_3 has much larger numbers than the deeper maps.

    Args:
        channels: C.
        scale: the factors at first.
    """

    EPSILON = 1e-10

    def __init__(self, channels: int, scale: float = 20.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape and dtype; computed in at least float32."""
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        # The gradient of this norm is 0 where all channels are 0; that of a square root is not.
        lengths = torch.linalg.vector_norm(values, dim=1, keepdim=True)
        return (self.weight[:, None, None] * (values / (lengths + self.EPSILON))).to(x.dtype)


def _check_levels(
    shapes: Mapping[str, ShapeSpec], extra_levels: Sequence[Sequence[int]], strides: Sequence[int]
) -> None:
    """Raises ValueError, see :class:`SSDPyramid`.

    A level may have a larger stride than the convolutions say if its map is smaller than that,
    because a convolution takes from the margin.
    """
    if missing := [name for name in _FROM_BELOW if name not in shapes]:
        raise ValueError(f"bottom_up has maps {sorted(shapes)}; expected also {missing}")
    if wrong := [tuple(x) for x in extra_levels if len(x) != 4]:
        raise ValueError(
            f"extra_levels has {wrong[0]}; expected (channels, kernel, stride, padding)"
        )
    if len(strides) != 2 + len(extra_levels):
        raise ValueError(
            f"strides are {list(strides)}; expected {2 + len(extra_levels)}: of conv4_3, conv7 "
            f"and {len(extra_levels)} extra levels"
        )
    expected, exact = [shapes[name].stride for name in _FROM_BELOW], [True, True]
    for _, kernel, stride, padding in extra_levels:
        expected.append(expected[-1] * stride)
        exact.append(exact[-1] and 2 * padding >= kernel - 1)
    for level, (got, least, same) in enumerate(zip(strides, expected, exact), start=3):
        if got < least or (same and got != least):
            raise ValueError(
                f"strides are {list(strides)}, and that of p{level} is {got}; expected "
                f"{'' if same else 'at least '}{least}, the product of the convolutions' strides"
            )


class SSDPyramid(Backbone):
    """conv4_3 after :class:`L2Norm`, conv7, and further levels after it; named p3, p4, and so on.

    A further level is a 1x1 convolution to half of its channels and another convolution, each with
    a ReLU.

    Args:
        bottom_up: a backbone with the maps "conv4_3" and "conv7", e.g. :class:`VGG16`.
        extra_levels: (channels, kernel, stride, padding) of each further level, as
            ``SSD_LEVELS`` has them.
        strides: pixels from one location to the next, of all levels. These are nominal: SSD300's
            maps of 3 x 3 and 1 x 1 have 100 and 300, and SSD512's of 1 x 1 has 512.
        scale: of the L2 norm at first.

    Raises:
        ValueError: ``bottom_up`` lacks a map; the strides are not those of the levels; or an extra
            level is no such tuple.
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        extra_levels: Sequence[Sequence[int]],
        strides: Sequence[int],
        scale: float = 20.0,
    ):
        super().__init__()
        shapes = bottom_up.output_shape()
        _check_levels(shapes, extra_levels, strides)
        self.bottom_up = bottom_up
        channels = [shapes[name].channels for name in _FROM_BELOW]
        self.l2_norm = L2Norm(channels[0], scale)
        self.extra_levels = nn.ModuleList()
        for out_channels, kernel, stride, padding in extra_levels:
            self.extra_levels.append(
                nn.ModuleDict(
                    {
                        "reduce": Conv2d(channels[-1], out_channels // 2, 1, activation=F.relu),
                        "conv": Conv2d(
                            out_channels // 2,
                            out_channels,
                            kernel,
                            stride=stride,
                            padding=padding,
                            activation=F.relu,
                        ),
                    }
                )
            )
            channels.append(out_channels)
        for conv in self.extra_levels.modules():
            if isinstance(conv, Conv2d):
                nn.init.xavier_uniform_(conv.weight)
                nn.init.zeros_(conv.bias)
        self._shapes = {
            f"p{level}": ShapeSpec(channels=c, stride=int(stride))
            for level, (c, stride) in enumerate(zip(channels, strides), start=3)
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) -> a map of each level.

        Raises:
            ValueError: the images are so small that a level has no location.
        """
        below = self.bottom_up(x)
        fine, coarse = (below[name] for name in _FROM_BELOW)
        maps = [self.l2_norm(fine), coarse]
        for level in self.extra_levels:
            reduce, conv = cast("nn.ModuleDict", level).values()
            reduced = reduce(maps[-1])
            try:
                maps.append(conv(reduced))
            except RuntimeError as error:
                if "Kernel size" not in str(error):
                    raise
                raise ValueError(
                    f"images of {tuple(x.shape[-2:])} px (height, width): nothing is left of them "
                    f"at level {len(maps) + 1} of {len(self._shapes)}, whose kernel is larger than "
                    f"the map {tuple(reduced.shape[-2:])} below; expected larger images, or fewer "
                    "extra_levels"
                ) from error
        return dict(zip(self._shapes, maps))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)


@BACKBONE_REGISTRY.register()
def build_ssd_backbone(cfg, input_shape: ShapeSpec) -> SSDPyramid:
    """VGG-16 and SSD's levels: MODEL.SSD.INPUT_SIZE (300 or 512), MODEL.VGG
    and MODEL.BACKBONE.FREEZE_AT, which is 0 in the published models (yacs).

    Raises:
        ValueError: for another input size.
    """
    size = cfg.MODEL.SSD.INPUT_SIZE
    if size not in SSD_LEVELS:
        raise ValueError(f"MODEL.SSD.INPUT_SIZE is {size}; expected one of {sorted(SSD_LEVELS)}")
    bottom_up = VGG16(
        width=cfg.MODEL.VGG.WIDTH,
        in_channels=input_shape.channels,
        norm=cfg.MODEL.VGG.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    return SSDPyramid(bottom_up=bottom_up, **SSD_LEVELS[size]._asdict())


def _conv(in_channels: int, out_channels: int, norm: str, **kwargs: int) -> Conv2d:
    conv = Conv2d(
        in_channels,
        out_channels,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=F.relu,
        **kwargs,
    )
    weight_init.c2_msra_fill(conv)
    return conv
