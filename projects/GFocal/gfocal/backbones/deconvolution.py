"""A neck of transposed convolutions: one fine map from the coarsest one of a network.

References: Simple Baselines (https://arxiv.org/abs/1804.06208), Sec. 2; CenterNet
(https://arxiv.org/abs/1904.07850), Sec. 5 and Fig. 6b, with the deformable convolutions.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from .deformable import deformable_twin

__all__ = ["DeconvolutionNeck", "UpsampleBlock"]


class DeconvolutionNeck(Backbone):
    """A network, and blocks that each double the size of its last map.

    Args:
        bottom_up: the network.
        in_feature: its map that is enlarged.
        channels: of each block. Three blocks on a map of stride 32 give one of stride 4.
        deformable: the 3x3 convolutions are deformable and modulated: DCNv2.
        norm: as ``detectron2.layers.get_norm`` takes it.
        size_divisibility: of the network's input, pixels.

    Raises:
        ValueError: the network has no such map, there are more blocks than its stride allows, or
            the divisibility is not a multiple of that stride.
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_feature: str = "res5",
        channels: Sequence[int] = (256, 128, 64),
        deformable: bool = False,
        norm: str = "BN",
        size_divisibility: int = 32,
    ):
        super().__init__()
        shapes = bottom_up.output_shape()
        if in_feature not in shapes:
            raise ValueError(
                f"in_feature (MODEL.CENTERNET.NECK.IN_FEATURE) is {in_feature!r}; expected one of "
                f"{sorted(shapes)}, the bottom_up's out_features (MODEL.RESNETS.OUT_FEATURES)"
            )
        shape = shapes[in_feature]
        if not channels or shape.stride % 2 ** len(channels):
            raise ValueError(
                f"channels are {list(channels)}; expected one number a block, and no more blocks "
                f"than halve the stride {shape.stride} of {in_feature!r}"
            )
        if size_divisibility < 1 or size_divisibility % shape.stride:
            raise ValueError(
                f"size_divisibility is {size_divisibility}; expected a multiple of the stride "
                f"{shape.stride} of {in_feature!r}"
            )
        self.bottom_up = bottom_up
        self.in_feature = in_feature
        widths = [shape.channels, *channels]
        self.blocks = nn.ModuleList(
            UpsampleBlock(*pair, deformable=deformable, norm=norm) for pair in pairwise(widths)
        )
        stride = shape.stride // 2 ** len(channels)
        self.out_feature = f"p{stride.bit_length() - 1}"
        self._out_shape = ShapeSpec(channels=channels[-1], stride=stride)
        self._size_divisibility = size_divisibility

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) -> {"p2": (N, channels, H / 4, W / 4)}, by the logarithm of its stride."""
        x = self.bottom_up(x)[self.in_feature]
        for block in self.blocks:
            x = block(x)
        return {self.out_feature: x}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {self.out_feature: self._out_shape}


class UpsampleBlock(nn.Module):
    """A 3x3 convolution and a transposed one of stride 2, each with norm and ReLU.

    The transposed convolution starts as bilinear interpolation, each channel on its own.

    Args:
        in_channels, out_channels: the first convolution changes their number.
        deformable: the 3x3 convolution is deformable and modulated.
        norm: as ``detectron2.layers.get_norm`` takes it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, deformable: bool = False, norm: str = "BN"
    ):
        super().__init__()
        self.conv = Conv2d(
            in_channels,
            out_channels,
            kernel_size=3,
            padding=1,
            bias=norm == "",
            norm=get_norm(norm, out_channels),
            activation=F.relu_,
        )
        self.conv_offset: nn.Module | None = None
        if deformable:
            self.conv, self.conv_offset = deformable_twin(self.conv, modulated=True, num_groups=1)
        self.up = nn.ConvTranspose2d(
            out_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=norm == ""
        )
        self.up_norm = get_norm(norm, out_channels)
        _fill_bilinear(self.up)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, 2 H, 2 W)."""
        x = self.conv(x) if self.conv_offset is None else self.conv(x, self.conv_offset(x))
        x = self.up(x)
        return F.relu_(x if self.up_norm is None else self.up_norm(x))


@torch.no_grad()
def _fill_bilinear(conv: nn.ConvTranspose2d) -> None:
    """Weights of a transposed 4x4 convolution of stride 2 with which it interpolates."""
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    # A pixel's neighbours in the enlarged map are 1/4 and 3/4 of its own pixels away.
    along = torch.tensor([0.25, 0.75, 0.75, 0.25], device=conv.weight.device)
    nn.init.zeros_(conv.weight)
    for channel in range(len(conv.weight)):
        conv.weight[channel, channel] = along[:, None] * along
