"""The blocks of Res2Net against their definition."""

import pytest
import torch
from torch.nn import functional as F

from gfocal.backbones import DeepStem, DeformRes2NetBlock, Res2NetBlock


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
