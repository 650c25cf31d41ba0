"""P6/P7 without a ReLU; deformable convolution against its definition; ResNe(X)t and Res2Net."""

import itertools

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.backbone.resnet import (
    BasicStem,
    BottleneckBlock,
    ResNet,
    build_resnet_backbone,
)
from detectron2.modeling.backbone.resnet import (
    DeformBottleneckBlock as Detectron2DeformBottleneckBlock,
)
from torch.nn import functional as F

from gfocal.backbones import (
    DeepStem,
    DeformBottleneckBlock,
    DeformConv2d,
    DeformRes2NetBlock,
    LinearP6P7,
    Res2NetBlock,
    make_res2net_stages,
    make_resnet_stages,
)
from gfocal.config import add_gfocal_config


def test_p7_is_linear_in_p5():
    """Without biases P7 is a linear map of P5: a ReLU in between would break f(-x) = -f(x)."""
    block = LinearP6P7(4, 4)
    x = torch.randn(1, 4, 9, 12)
    p6, p7 = block(x)
    assert p6.shape == (1, 4, 5, 6) and p7.shape == (1, 4, 3, 3)
    assert (p6 < 0).any()
    torch.testing.assert_close(block(-x)[1], -p7)
    torch.testing.assert_close(block.p7(p6), p7)


def bilinear(x, rows, columns):
    """x (N, C, H, W) at fractional rows, columns (N, P): (N, C, P); zero outside the map."""
    height, width = x.shape[2:]
    values = 0
    for i, j in itertools.product((0, 1), (0, 1)):
        row, column = rows.floor() + i, columns.floor() + j
        weight = (1 - (rows - row).abs()) * (1 - (columns - column).abs())
        inside = (0 <= row) & (row < height) & (0 <= column) & (column < width)
        index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        index = index.long()[:, None].expand(-1, x.shape[1], -1)
        values = values + (weight * inside)[:, None] * x.flatten(2).gather(2, index)
    return values


def deform_conv_by_definition(x, offsets, weight, mask, stride, padding, dilation, groups):
    """DCN Eq. 2 and DCNv2 Eq. 1: y(p) = sum_k w_k * m_k(p) * x(p + p_k + dp_k)."""
    batch, _, height, width = x.shape
    out_channels, _, kernel, _ = weight.shape
    size = [(n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for n in (height, width)]
    row, column = torch.meshgrid(*(torch.arange(n) * stride - padding for n in size), indexing="ij")
    samples = kernel * kernel
    deform_groups = offsets.shape[1] // (2 * samples)
    offsets = offsets.reshape(batch, deform_groups, samples, 2, -1)
    out = torch.zeros(batch, out_channels, size[0] * size[1], dtype=x.dtype)
    for k in range(samples):
        parts = []
        for g, part in enumerate(x.chunk(deform_groups, dim=1)):
            rows = row.flatten() + (k // kernel) * dilation + offsets[:, g, k, 0]
            columns = column.flatten() + (k % kernel) * dilation + offsets[:, g, k, 1]
            value = bilinear(part, rows, columns)
            if mask is not None:
                value = value * mask.reshape(batch, deform_groups, samples, -1)[:, g, k, None]
            parts.append(value)
        sampled = torch.cat(parts, dim=1).chunk(groups, dim=1)
        weights = weight[:, :, k // kernel, k % kernel].chunk(groups, dim=0)
        out = out + torch.cat([torch.matmul(w, s) for w, s in zip(weights, sampled)], dim=1)
    return out.reshape(batch, out_channels, *size)


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(
    ("stride", "dilation", "groups", "deform_groups"),
    [(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 4, 1), (1, 1, 1, 2), (2, 2, 2, 4)],
)
def test_deformable_convolution_by_definition(modulated, stride, dilation, groups, deform_groups):
    """Values and gradients in float64; offsets of some pixels, many of them to the outside."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    conv = DeformConv2d(
        8,
        12,
        kernel_size=3,
        stride=stride,
        padding=dilation,
        dilation=dilation,
        groups=groups,
        bias=False,
        modulated=modulated,
    ).double()
    conv.weight.data = randn(*conv.weight.shape)
    x = randn(2, 8, 9, 7).requires_grad_()
    size = [(n - 1) // stride + 1 for n in (9, 7)]
    offsets = (randn(2, deform_groups * 18, *size) * 2.5).requires_grad_()
    logits = randn(2, deform_groups * 9, *size).requires_grad_()
    inputs = [x, conv.weight, offsets, *([logits] if modulated else [])]

    ours = conv(x, torch.cat([offsets, logits], dim=1) if modulated else offsets)
    expected = deform_conv_by_definition(
        x,
        offsets,
        conv.weight,
        logits.sigmoid() if modulated else None,
        stride,
        dilation,
        dilation,
        groups,
    )
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    cotangent = randn(*ours.shape)
    ours = torch.autograd.grad(ours, inputs, cotangent)
    expected = torch.autograd.grad(expected, inputs, cotangent)
    for gradient, its_definition in zip(ours, expected):
        torch.testing.assert_close(gradient, its_definition, rtol=1e-10, atol=1e-10)


def test_deformable_convolution_without_offsets_is_a_convolution():
    conv = DeformConv2d(4, 6, kernel_size=3, padding=1, norm=torch.nn.BatchNorm2d(6))
    conv.activation = F.relu
    conv.norm.weight.data.uniform_(-1, 1)
    x = torch.randn(2, 4, 5, 6)
    plain = F.relu(conv.norm(F.conv2d(x, conv.weight, conv.bias, padding=1)))
    torch.testing.assert_close(conv(x, torch.zeros(2, 18, 5, 6)), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_deformable_convolution_in_half_precision(dtype):
    """The operator itself has no bfloat16 kernel; float32 inside, its own outside."""
    conv = DeformConv2d(4, 4, kernel_size=3, padding=1, bias=False)
    x, offsets = torch.randn(1, 4, 8, 8), torch.randn(1, 18, 8, 8)
    expected = conv(x, offsets)
    out = conv(x.to(dtype), offsets.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.1)


@pytest.mark.parametrize(("depth", "width"), [(18, None), (50, 64), (50, 4)])
def test_resnet_stages_are_detectron2s(depth, width):
    groups = 32 if width == 4 else 1
    cfg = get_cfg()
    cfg.MODEL.RESNETS.merge_from_list(
        ["DEPTH", depth, "NUM_GROUPS", groups, "WIDTH_PER_GROUP", width or 64]
        + ["STRIDE_IN_1X1", False, "OUT_FEATURES", ["res2", "res5"]]
    )
    if depth == 18:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    theirs = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    stages = make_resnet_stages(depth=depth, num_groups=groups, width_per_group=width or 64)
    ours = ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res2", "res5"], freeze_at=2)
    assert str(ours) == str(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 32, 64)
    for name, value in ours(x).items():
        assert torch.equal(value, theirs(x)[name])
    frozen, theirs_frozen = (
        {n for n, p in net.named_parameters() if not p.requires_grad} for net in (ours, theirs)
    )
    assert frozen == theirs_frozen


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_deformable_block_has_detectron2s_parameters(modulated, stride_in_1x1):
    kwargs = {
        "bottleneck_channels": 8,
        "stride": 2,
        "num_groups": 2,
        "norm": "FrozenBN",
        "stride_in_1x1": stride_in_1x1,
        "deform_modulated": modulated,
        "deform_num_groups": 4,
    }
    ours = DeformBottleneckBlock(6, 16, **kwargs)
    theirs = Detectron2DeformBottleneckBlock(6, 16, **kwargs)
    shapes = [{k: v.shape for k, v in b.state_dict().items()} for b in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert ours.conv2.stride == ((1, 1) if stride_in_1x1 else (2, 2))
    out = ours(torch.randn(2, 6, 9, 12))
    assert out.shape == (2, 16, 5, 6)
    out.sum().backward()
    assert ours.conv2_offset.weight.grad.any() and ours.conv2.weight.grad.any()


def test_deformable_block_starts_as_the_plain_block():
    """Initial weights too; the weights of DCNv2, sigmoid(0), halve the convolution."""
    torch.manual_seed(0)
    plain = BottleneckBlock(6, 16, bottleneck_channels=8, norm="", stride=2)
    torch.manual_seed(0)
    deformable = DeformBottleneckBlock(6, 16, bottleneck_channels=8, norm="", stride=2)
    x = torch.randn(2, 6, 8, 8)
    torch.testing.assert_close(deformable(x), plain(x))
    modulated = DeformBottleneckBlock(
        6, 16, bottleneck_channels=8, norm="", stride=2, deform_modulated=True
    )
    state = plain.state_dict()
    state["conv2.weight"] = 2 * state["conv2.weight"]
    modulated.load_state_dict(state, strict=False)
    torch.testing.assert_close(modulated(x), plain(x))


def test_res2net_block_by_definition():
    """Fig. 2b of the paper: y_i = K_i(x_i + y_{i-1}), the last part as it is."""
    block = Res2NetBlock(16, 16, bottleneck_channels=3, scales=4, norm="")
    x = torch.randn(2, 16, 5, 7)
    x1, x2, x3, x4 = F.relu(block.conv1(x)).split(3, dim=1)
    y1 = F.relu(block.conv2[0](x1))
    y2 = F.relu(block.conv2[1](x2 + y1))
    y3 = F.relu(block.conv2[2](x3 + y2))
    expected = F.relu(block.conv3(torch.cat([y1, y2, y3, x4], dim=1)) + x)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_first_res2net_block_of_a_stage_by_definition(stride):
    """Its parts do not see each other; the last is averaged over 3x3, the shortcut over 2x2."""
    block = Res2NetBlock(8, 16, bottleneck_channels=3, scales=3, stride=stride, norm="")
    x = torch.randn(2, 8, 5, 7)  # odd: the pooled shortcut rounds up, as a strided convolution does
    x1, x2, x3 = F.relu(block.conv1(x)).split(3, dim=1)
    y1, y2 = F.relu(block.conv2[0](x1)), F.relu(block.conv2[1](x2))
    shortcut = x
    if stride == 2:
        x3 = F.avg_pool2d(x3, 3, 2, padding=1)
        # mean of those pixels of a 2x2 cell that exist
        sums = F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2)
        shortcut = sums / F.avg_pool2d(F.pad(torch.ones_like(x), (0, 1, 0, 1)), 2)
    expected = F.relu(block.conv3(torch.cat([y1, y2, x3], dim=1)) + block.shortcut(shortcut))
    torch.testing.assert_close(block(x), expected)


def test_deformable_res2net_block():
    plain = Res2NetBlock(8, 16, bottleneck_channels=3, stride=2, norm="FrozenBN")
    block = DeformRes2NetBlock(8, 16, bottleneck_channels=3, stride=2, norm="FrozenBN")
    result = block.load_state_dict(plain.state_dict(), strict=False)
    assert result.missing_keys == [
        f"conv2_offset.{i}.{leaf}" for i in range(3) for leaf in ("weight", "bias")
    ]
    x = torch.randn(2, 8, 6, 7)
    torch.testing.assert_close(block(x), plain(x))
    block.conv2_offset[1].bias.data.fill_(1.0)
    assert not torch.allclose(block(x), plain(x))


def test_deep_stem():
    stem = DeepStem(norm="BN")
    assert stem(torch.randn(2, 3, 64, 96)).shape == (2, 64, 16, 24)
    assert [stem.conv1.out_channels, stem.conv2.out_channels] == [32, 32]
    assert stem.stride == 4


@pytest.mark.parametrize(
    ("make", "kwargs", "message"),
    [
        (make_resnet_stages, {"depth": 42}, r"depth is 42; expected one of \[50, 101, 152\]"),
        (make_res2net_stages, {"depth": 18}, "depth is 18; expected one of"),
        (make_resnet_stages, {"depth": 18, "num_groups": 32}, "ResNet-18 has no bottlenecks: got"),
        (make_res2net_stages, {"depth": 50, "scales": 1}, "scales is 1; expected at least 2"),
        (
            make_resnet_stages,
            {"depth": 50, "deform_on_per_stage": [True]},
            r"deform_on_per_stage is \[True\]; expected four values",
        ),
        (
            make_resnet_stages,
            {"depth": 34, "deform_on_per_stage": [False, False, False, True]},
            "ResNet-34 has no bottlenecks",
        ),
    ],
)
def test_stages_that_there_are_none_of(make, kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        make(**kwargs)


def yacs(builder, *overrides):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.BACKBONE.NAME = builder
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.merge_from_list(list(overrides))
    return cfg


@pytest.mark.parametrize(
    ("builder", "overrides"),
    [
        (
            "build_gfl_resnet_fpn_backbone",
            ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64],
        ),
        (
            "build_gfl_resnet_fpn_backbone",
            ["MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True]],
        ),
        (
            "build_gfl_res2net_fpn_backbone",
            ["MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, True, True]]
            + ["MODEL.RESNETS.DEFORM_MODULATED", True],
        ),
    ],
)
def test_yacs_builders(builder, overrides):
    backbone = build_backbone(yacs(builder, *overrides))
    shapes = backbone.output_shape()
    assert [shapes[f"p{i}"].stride for i in range(3, 8)] == [8, 16, 32, 64, 128]
    assert {s.channels for s in shapes.values()} == {32}
    assert isinstance(backbone.top_block, LinearP6P7)
    assert backbone(torch.randn(1, 3, 64, 96))["p7"].shape == (1, 32, 1, 1)


def test_yacs_builders_reach_the_layers():
    with torch.device("meta"):
        resnet = build_backbone(
            yacs(
                "build_gfl_resnet_fpn_backbone",
                *("MODEL.RESNETS.NUM_GROUPS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
                *("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, True, True]),
                *("MODEL.RESNETS.DEFORM_NUM_GROUPS", 2, "MODEL.RESNETS.DEFORM_MODULATED", True),
            )
        ).bottom_up
        res2net = build_backbone(
            yacs("build_gfl_res2net_fpn_backbone", "MODEL.RES2NET.SCALES", 3)
        ).bottom_up
    assert not hasattr(resnet.res3[0], "conv2_offset")
    assert resnet.res4[0].conv2_offset.out_channels == 2 * 27
    assert (resnet.res4[0].conv2.groups, resnet.res4[0].conv2.out_channels) == (32, 512)
    assert isinstance(res2net.stem, DeepStem)
    assert len(res2net.res2[0].conv2) == 2 and res2net.res2[0].conv1.out_channels == 3 * 26


@pytest.mark.parametrize("key", ["RES5_DILATION", "RES2_OUT_CHANNELS", "STEM_OUT_CHANNELS"])
def test_yacs_keys_with_one_value(key):
    cfg = yacs("build_gfl_resnet_fpn_backbone", f"MODEL.RESNETS.{key}", 2)
    with torch.device("meta"), pytest.raises(ValueError, match=rf"RESNETS.{key} is 2; expected"):
        build_backbone(cfg)
