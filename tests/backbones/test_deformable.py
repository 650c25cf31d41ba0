"""Deformable convolution against its definition, and the block against Detectron2's."""

import itertools

import pytest
import torch
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.modeling.backbone.resnet import (
    DeformBottleneckBlock as Detectron2DeformBottleneckBlock,
)
from torch.nn import functional as F

from gfocal.backbones import DeformBottleneckBlock, DeformConv2d


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
