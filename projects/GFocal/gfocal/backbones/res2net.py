"""Res2Net v1d: its stem, its blocks, plain and deformable, and its stages for LazyConfigs.

Parameter names are Detectron2's, if it has the layer.
"""

from collections.abc import Sequence

import torch
from detectron2.layers import CNNBlockBase, Conv2d, get_norm
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F

from .deformable import deformable_twin
from .resnet import bottleneck_stages

__all__ = ["DeepStem", "DeformRes2NetBlock", "Res2NetBlock", "make_res2net_stages"]


def make_res2net_stages(
    *,
    depth: int,
    norm: str = "FrozenBN",
    scales: int = 4,
    base_width: int = 26,
    deform_on_per_stage: Sequence[bool] = (False, False, False, False),
    deform_modulated: bool = False,
    deform_num_groups: int = 1,
) -> list[list[CNNBlockBase]]:
    """The stages res2..res5 of a Res2Net v1d, for ``detectron2.modeling.ResNet``.

    Args:
        depth: 50, 101 or 152.
        norm: as ``detectron2.layers.get_norm`` takes it.
        scales: number of parts of the channels of the 3x3 convolutions ("4s").
        base_width: channels of one part in res2 ("26w"); doubled from stage to stage.
        deform_on_per_stage, deform_modulated, deform_num_groups: as in :func:`make_resnet_stages`.

    Raises:
        ValueError: if there is no such depth, or ``scales`` is less than 2.
    """
    return bottleneck_stages(
        depth,
        (Res2NetBlock, DeformRes2NetBlock),
        base_width,
        deform_on_per_stage,
        {"deform_modulated": deform_modulated, "deform_num_groups": deform_num_groups},
        norm=norm,
        scales=scales,
    )


class DeepStem(CNNBlockBase):
    """The stem of ResNet v1d: three 3x3 convolutions instead of one of 7x7, then max pooling
    (https://arxiv.org/abs/1812.01187, Fig. 2b).

    Args:
        in_channels: channels of the image.
        out_channels: channels of the stem; its first two convolutions have half as many.
        norm: as ``detectron2.layers.get_norm`` takes it.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: str = "BN"):
        super().__init__(in_channels, out_channels, 4)
        half = out_channels // 2
        self.conv1 = _conv(in_channels, half, norm, kernel_size=3, stride=2, padding=1)
        self.conv2 = _conv(half, half, norm, kernel_size=3, padding=1)
        self.conv3 = _conv(half, out_channels, norm, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, out_channels, H / 4, W / 4)."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu_(conv(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class Res2NetBlock(CNNBlockBase):
    """The bottleneck of Res2Net (https://arxiv.org/abs/1904.01169, Fig. 2b), as in its v1d models.

    The channels of the 3x3 stage are split into ``scales`` parts. Each part but the last has a
    convolution. Its input is the part plus the output of the part before. In the first block of a
    stage (with a shortcut layer) the parts are independent, and the last part is pooled if the
    others have a stride. The shortcut pools before its 1x1 convolution.

    Args:
        in_channels: of the block.
        out_channels: of the block.
        bottleneck_channels: channels of one part.
        scales: number of parts, at least 2.
        stride: of the 3x3 convolutions.
        norm: as ``detectron2.layers.get_norm`` takes it.

    Raises:
        ValueError: if ``scales`` is less than 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        scales: int = 4,
        stride: int = 1,
        norm: str = "BN",
    ):
        super().__init__(in_channels, out_channels, stride)
        if scales < 2:
            raise ValueError(f"scales is {scales}; expected at least 2 (1 is a plain ResNet)")
        width = bottleneck_channels
        self.shortcut = self.shortcut_pool = self.pool = None
        if in_channels != out_channels or stride != 1:
            self.shortcut_pool = nn.AvgPool2d(stride, stride, ceil_mode=True)
            self.shortcut = _conv(in_channels, out_channels, norm, kernel_size=1)
            if stride != 1:
                self.pool = nn.AvgPool2d(3, stride, padding=1)
        self.conv1 = _conv(in_channels, scales * width, norm, kernel_size=1)
        self.conv2 = nn.ModuleList(
            _conv(width, width, norm, kernel_size=3, stride=stride, padding=1)
            for _ in range(scales - 1)
        )
        self.conv3 = _conv(scales * width, out_channels, norm, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        *parts, last = F.relu_(self.conv1(x)).chunk(len(self.conv2) + 1, dim=1)
        outs: list[Tensor] = []
        for i, part in enumerate(parts):
            if self.shortcut is None and outs:
                part = part + outs[-1]
            outs.append(F.relu_(self._conv2(i, part)))
        outs.append(last if self.pool is None else self.pool(last))
        out = self.conv3(torch.cat(outs, dim=1))
        if self.shortcut is not None and self.shortcut_pool is not None:  # both or neither
            x = self.shortcut(self.shortcut_pool(x))
        out += x
        return F.relu_(out)

    def _conv2(self, i: int, part: Tensor) -> Tensor:
        return self.conv2[i](part)


class DeformRes2NetBlock(Res2NetBlock):
    """A Res2Net block with deformable 3x3 convolutions, each with its own offsets.

    Args:
        args, kwargs: of :class:`Res2NetBlock`.
        deform_modulated: DCNv2 instead of DCN.
        deform_num_groups: groups of input channels with offsets of their own.
    """

    def __init__(self, *args, deform_modulated: bool = False, deform_num_groups: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        twins = [deformable_twin(conv, deform_modulated, deform_num_groups) for conv in self.conv2]
        self.conv2 = nn.ModuleList(conv for conv, _ in twins)
        self.conv2_offset = nn.ModuleList(offset for _, offset in twins)

    def _conv2(self, i: int, part: Tensor) -> Tensor:
        return self.conv2[i](part, self.conv2_offset[i](part))


def _conv(in_channels: int, out_channels: int, norm: str, **kwargs) -> Conv2d:
    conv = Conv2d(
        in_channels, out_channels, bias=False, norm=get_norm(norm, out_channels), **kwargs
    )
    weight_init.c2_msra_fill(conv)
    return conv
