"""Backbones and necks that the released models need and Detectron2 does not have.

P6/P7 without a ReLU; deformable stages on torchvision's operator, which runs on CPU and GPU without
Detectron2's compiled one; ResNeXt widths and deformable stages for LazyConfigs; Res2Net v1d.
Parameter names are Detectron2's wherever it has the layer.
"""

from collections.abc import Sequence

import torch
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock, ResNet
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

__all__ = [
    "DeepStem",
    "DeformBottleneckBlock",
    "DeformConv2d",
    "DeformRes2NetBlock",
    "LinearP6P7",
    "Res2NetBlock",
    "build_gfl_res2net_fpn_backbone",
    "build_gfl_resnet_fpn_backbone",
    "make_res2net_stages",
    "make_resnet_stages",
]

_NUM_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class LinearP6P7(nn.Module):
    """P6 and P7 as strided 3x3 convolutions of P5, with no ReLU between them.

    That is what the released GFL weights were trained with; Detectron2's ``LastLevelP6P7`` puts a
    ReLU before P7.

    Args:
        in_channels: channels of ``in_feature``.
        out_channels: channels of P6 and P7.
        in_feature: the map that P6 is made from.
    """

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "p5"):
        super().__init__()
        self.num_levels = 2  # what FPN asks of a top block
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=2, padding=1)
        weight_init.c2_xavier_fill(self.p6)
        weight_init.c2_xavier_fill(self.p7)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> [P6, P7], each half the size of the one before."""
        p6 = self.p6(x)
        return [p6, self.p7(p6)]


class DeformConv2d(Conv2d):
    """A convolution whose samples are moved: DCN (https://arxiv.org/abs/1703.06211, Eq. 2), or,
    ``modulated``, also weighted: DCNv2 (https://arxiv.org/abs/1811.11168, Eq. 1).

    The models that GFL's authors call dcnv2 and whose weights load here are not modulated.

    Args:
        args, kwargs: of ``detectron2.layers.Conv2d``, with ``norm`` and ``activation``.
        modulated: expect a weight for every sample.
    """

    def __init__(self, *args, modulated: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.modulated = modulated

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        """
        Args:
            x: (N, C_in, H, W).
            offsets: (N, G * 2 * kh * kw, H_out, W_out): for each of G groups of input channels and
                each sample of the kernel dy, dx in pixels of ``x``. ``modulated``: half as many
                channels more, the logits of the samples' weights.

        Returns:
            (N, C_out, H_out, W_out), of the dtype of ``x``; computed in at least float32.
        """
        weights = None
        if self.modulated:
            num_samples = offsets.shape[1] // 3
            offsets, weights = offsets.split([2 * num_samples, num_samples], dim=1)
            weights = weights.sigmoid()
        # The operator has no bfloat16 kernel, and autocast on a CPU does not know it.
        dtype = torch.promote_types(x.dtype, torch.float32)
        tensors = (x, offsets, self.weight, self.bias, weights)
        inputs, offsets, weight, bias, weights = (t if t is None else t.to(dtype) for t in tensors)
        out = deform_conv2d(
            inputs, offsets, weight, bias, self.stride, self.padding, self.dilation, weights
        ).to(x.dtype)
        if self.norm is not None:
            out = self.norm(out)
        return out if self.activation is None else self.activation(out)


def _deformable(conv: Conv2d, modulated: bool, num_groups: int) -> tuple[DeformConv2d, nn.Conv2d]:
    """A convolution's deformable twin, and the layer that predicts its offsets, at first all 0."""
    shape = {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}
    shape["dilation"] = conv.dilation
    num_samples = num_groups * conv.kernel_size[0] * conv.kernel_size[1]
    offset = nn.Conv2d(conv.in_channels, (3 if modulated else 2) * num_samples, **shape)
    nn.init.zeros_(offset.weight)
    nn.init.zeros_(offset.bias)
    twin = DeformConv2d(
        conv.in_channels,
        conv.out_channels,
        groups=conv.groups,
        bias=conv.bias is not None,
        norm=conv.norm,
        activation=conv.activation,
        modulated=modulated,
        **shape,
    )
    twin.weight, twin.bias = conv.weight, conv.bias
    return twin, offset


class DeformBottleneckBlock(BottleneckBlock):
    """Detectron2's ``DeformBottleneckBlock``, parameters and all, on torchvision's operator.

    Args:
        args, kwargs: of ``BottleneckBlock``.
        deform_modulated: DCNv2 instead of DCN.
        deform_num_groups: groups of input channels with offsets of their own.
    """

    def __init__(self, *args, deform_modulated: bool = False, deform_num_groups: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        self.conv2, self.conv2_offset = _deformable(self.conv2, deform_modulated, deform_num_groups)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.conv1(x))
        out = F.relu_(self.conv2(out, self.conv2_offset(out)))
        out = self.conv3(out)
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


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

    The channels of the 3x3 stage are split into ``scales`` parts: each but the last has a
    convolution, whose input is its part plus the output of the part before. In the first block of a
    stage (the one with a shortcut layer) the parts are independent and the last one is pooled where
    the others have a stride; the shortcut pools before its 1x1 convolution.

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
        out += x if self.shortcut is None else self.shortcut(self.shortcut_pool(x))
        return F.relu_(out)

    def _conv2(self, i: int, part: Tensor) -> Tensor:
        return self.conv2[i](part)


class DeformRes2NetBlock(Res2NetBlock):
    """A Res2Net block whose 3x3 convolutions are deformable, each with its own offsets.

    Args:
        args, kwargs: of :class:`Res2NetBlock`.
        deform_modulated: DCNv2 instead of DCN.
        deform_num_groups: groups of input channels with offsets of their own.
    """

    def __init__(self, *args, deform_modulated: bool = False, deform_num_groups: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        twins = [_deformable(conv, deform_modulated, deform_num_groups) for conv in self.conv2]
        self.conv2 = nn.ModuleList(conv for conv, _ in twins)
        self.conv2_offset = nn.ModuleList(offset for _, offset in twins)

    def _conv2(self, i: int, part: Tensor) -> Tensor:
        return self.conv2[i](part, self.conv2_offset[i](part))


def make_resnet_stages(
    *,
    depth: int,
    norm: str = "FrozenBN",
    num_groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = False,
    deform_on_per_stage: Sequence[bool] = (False, False, False, False),
    deform_modulated: bool = False,
    deform_num_groups: int = 1,
) -> list[list[CNNBlockBase]]:
    """The stages res2..res5 of a ResNet or ResNeXt, for ``detectron2.modeling.ResNet``.

    The arguments are the keys of MODEL.RESNETS; a ResNeXt 32x4d has 32 groups of width 4.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm: as ``detectron2.layers.get_norm`` takes it.
        num_groups: groups of the 3x3 convolutions.
        width_per_group: channels of one group in res2; doubled from stage to stage.
        stride_in_1x1: where the stride of a stage is: in the first 1x1 convolution (the MSRA
            weights) or in the 3x3 one (torchvision's).
        deform_on_per_stage: whether the 3x3 convolutions of res2..res5 are deformable.
        deform_modulated: DCNv2 instead of DCN.
        deform_num_groups: groups of input channels with offsets of their own.

    Raises:
        ValueError: if there is no such depth, or it has no bottlenecks and so no such option.
    """
    if depth in (18, 34):
        if num_groups != 1 or width_per_group != 64 or any(deform_on_per_stage):
            raise ValueError(
                f"ResNet-{depth} has no bottlenecks: got num_groups {num_groups}, width_per_group "
                f"{width_per_group}, deform_on_per_stage {list(deform_on_per_stage)}; expected "
                "1, 64 and no deformable stage"
            )
        return ResNet.make_default_stages(depth, norm=norm)
    return _bottleneck_stages(
        depth,
        (BottleneckBlock, DeformBottleneckBlock),
        num_groups * width_per_group,
        deform_on_per_stage,
        {"deform_modulated": deform_modulated, "deform_num_groups": deform_num_groups},
        norm=norm,
        num_groups=num_groups,
        stride_in_1x1=stride_in_1x1,
    )


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
        scales: parts that the channels of the 3x3 convolutions are split into ("4s").
        base_width: channels of one part in res2 ("26w"); doubled from stage to stage.
        deform_on_per_stage, deform_modulated, deform_num_groups: as in :func:`make_resnet_stages`.

    Raises:
        ValueError: if there is no such depth, or ``scales`` is less than 2.
    """
    return _bottleneck_stages(
        depth,
        (Res2NetBlock, DeformRes2NetBlock),
        base_width,
        deform_on_per_stage,
        {"deform_modulated": deform_modulated, "deform_num_groups": deform_num_groups},
        norm=norm,
        scales=scales,
    )


def _bottleneck_stages(depth, blocks, width, deform_on_per_stage, deform_kwargs, **kwargs):
    """``blocks``: the plain block and its deformable sibling; ``width``: bottleneck of res2."""
    if depth not in _NUM_BLOCKS:
        raise ValueError(f"depth is {depth!r}; expected one of {sorted(_NUM_BLOCKS)}")
    if len(deform_on_per_stage) != 4:
        raise ValueError(
            f"deform_on_per_stage is {list(deform_on_per_stage)}; expected four values, one for "
            "each of res2..res5"
        )
    stages, in_channels = [], 64
    for i, (num_blocks, deform) in enumerate(zip(_NUM_BLOCKS[depth], deform_on_per_stage)):
        out_channels = 256 * 2**i
        stages.append(
            ResNet.make_stage(
                blocks[bool(deform)],
                num_blocks,
                in_channels=in_channels,
                out_channels=out_channels,
                bottleneck_channels=width * 2**i,
                stride_per_block=[1 if i == 0 else 2] + [1] * (num_blocks - 1),
                **kwargs,
                **(deform_kwargs if deform else {}),
            )
        )
        in_channels = out_channels
    return stages


def _conv(in_channels: int, out_channels: int, norm: str, **kwargs) -> Conv2d:
    conv = Conv2d(
        in_channels, out_channels, bias=False, norm=get_norm(norm, out_channels), **kwargs
    )
    weight_init.c2_msra_fill(conv)
    return conv


@BACKBONE_REGISTRY.register()
def build_gfl_resnet_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """ResNet(XT) + FPN + P6/P7 as the released GFL models have it: MODEL.RESNETS, MODEL.FPN (yacs).

    Raises:
        ValueError: for a depth, width or dilation in MODEL.RESNETS that there is none of.
    """
    resnets = cfg.MODEL.RESNETS
    stages = make_resnet_stages(
        depth=resnets.DEPTH,
        norm=resnets.NORM,
        num_groups=resnets.NUM_GROUPS,
        width_per_group=resnets.WIDTH_PER_GROUP,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        deform_on_per_stage=resnets.DEFORM_ON_PER_STAGE,
        deform_modulated=resnets.DEFORM_MODULATED,
        deform_num_groups=resnets.DEFORM_NUM_GROUPS,
    )
    return _fpn(cfg, BasicStem, stages, input_shape)


@BACKBONE_REGISTRY.register()
def build_gfl_res2net_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """Res2Net v1d + FPN + P6/P7: MODEL.RESNETS, MODEL.RES2NET, MODEL.FPN (yacs).

    Raises:
        ValueError: for a depth or dilation in MODEL.RESNETS that there is none of.
    """
    resnets = cfg.MODEL.RESNETS
    stages = make_res2net_stages(
        depth=resnets.DEPTH,
        norm=resnets.NORM,
        scales=cfg.MODEL.RES2NET.SCALES,
        base_width=cfg.MODEL.RES2NET.BASE_WIDTH,
        deform_on_per_stage=resnets.DEFORM_ON_PER_STAGE,
        deform_modulated=resnets.DEFORM_MODULATED,
        deform_num_groups=resnets.DEFORM_NUM_GROUPS,
    )
    return _fpn(cfg, DeepStem, stages, input_shape)


def _fpn(cfg, stem: type[CNNBlockBase], stages, input_shape: ShapeSpec) -> FPN:
    resnets, fpn = cfg.MODEL.RESNETS, cfg.MODEL.FPN
    if resnets.RES5_DILATION != 1:
        raise ValueError(f"MODEL.RESNETS.RES5_DILATION is {resnets.RES5_DILATION}; expected 1")
    widths = {"STEM_OUT_CHANNELS": 64, "RES2_OUT_CHANNELS": stages[0][-1].out_channels}
    for key, expected in widths.items():
        if resnets[key] != expected:
            raise ValueError(
                f"MODEL.RESNETS.{key} is {resnets[key]}; expected {expected} for depth "
                f"{resnets.DEPTH}"
            )
    bottom_up = ResNet(
        stem(in_channels=input_shape.channels, norm=resnets.NORM),
        stages,
        out_features=resnets.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    return FPN(
        bottom_up=bottom_up,
        in_features=fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        top_block=LinearP6P7(fpn.OUT_CHANNELS, fpn.OUT_CHANNELS),
        fuse_type=fpn.FUSE_TYPE,
    )
