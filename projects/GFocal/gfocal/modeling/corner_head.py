"""CornerNet's head (https://arxiv.org/abs/1808.01244, Sec. 3.5).

N images, K classes, F features. Maps have H x W cells, rows first.
"""

import math
from collections.abc import Sequence

from detectron2.layers import Conv2d, get_norm
from torch import Tensor, nn
from torch.nn import functional as F

from .corners import CornerMaps, CornerPredictions, corner_pool
from .settings import COUNT, PROBABILITY, check_settings

__all__ = ["CornerHead"]


class CornerHead(nn.Module):
    """For each stack and each corner: corner pooling, then heat maps, embeddings and offsets.

    Args:
        in_channels: of the maps.
        num_classes: K.
        num_stacks: number of maps, one a stack of the backbone.
        pool_channels: inside of the corner pooling.
        conv_dim: of the convolution before each output.
        norm: of the corner pooling's convolutions, as ``detectron2.layers.get_norm`` takes it.
        prior_prob: score of an untrained head.

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        num_stacks: int = 2,
        pool_channels: int = 128,
        conv_dim: int = 256,
        norm: str = "BN",
        prior_prob: float = 0.1,
    ):
        super().__init__()
        check_settings(COUNT, in_channels=in_channels, num_classes=num_classes)
        check_settings(COUNT, num_stacks=num_stacks, pool_channels=pool_channels, conv_dim=conv_dim)
        check_settings(PROBABILITY, prior_prob=prior_prob)
        self.in_channels = in_channels
        self.num_classes, self.num_stacks = num_classes, num_stacks

        def branches(to_end: bool) -> nn.ModuleList:
            return nn.ModuleList(
                _Branch(to_end, in_channels, num_classes, pool_channels, conv_dim, norm)
                for _ in range(num_stacks)
            )

        self.top_left, self.bottom_right = branches(True), branches(False)
        for branch in (*self.top_left, *self.bottom_right):
            nn.init.constant_(branch.heat[1].bias, -math.log((1 - prior_prob) / prior_prob))

    def forward(self, features: Sequence[Tensor], last_only: bool = False) -> CornerPredictions:
        """
        Args:
            features: (N, F, H, W) of each stack.
            last_only: of the last stack alone, whose outputs the detections are made of.
        """
        stacks = range(len(features))[-1:] if last_only else range(len(features))
        return CornerPredictions(
            tuple(
                (self.top_left[i](features[i]), self.bottom_right[i](features[i])) for i in stacks
            )
        )


class _Branch(nn.Module):
    """One corner of one stack."""

    def __init__(
        self,
        to_end: bool,
        in_channels: int,
        num_classes: int,
        pool_channels: int,
        conv_dim: int,
        norm: str,
    ):
        super().__init__()
        self.pool = _PoolBlock(to_end, in_channels, pool_channels, norm)

        def output(channels: int) -> nn.Sequential:
            return nn.Sequential(
                Conv2d(in_channels, conv_dim, 3, padding=1, activation=F.relu_),
                Conv2d(conv_dim, channels, 1),
            )

        self.heat, self.embedding, self.offset = output(num_classes), output(1), output(2)

    def forward(self, x: Tensor) -> CornerMaps:
        x = self.pool(x)
        return CornerMaps(self.heat(x), self.embedding(x), self.offset(x))


class _PoolBlock(nn.Module):
    """A residual block whose first convolution is replaced by corner pooling (Fig. 7)."""

    def __init__(self, to_end: bool, channels: int, pool_channels: int, norm: str):
        super().__init__()
        self.to_end = to_end

        def conv(in_channels: int, out_channels: int, size: int, **kwargs) -> Conv2d:
            return Conv2d(
                in_channels,
                out_channels,
                size,
                padding=size // 2,
                bias=not norm,
                norm=get_norm(norm, out_channels),
                **kwargs,
            )

        self.over_rows = conv(channels, pool_channels, 3, activation=F.relu_)
        self.over_columns = conv(channels, pool_channels, 3, activation=F.relu_)
        self.merge = conv(pool_channels, channels, 3)
        self.shortcut = conv(channels, channels, 1)
        self.out = conv(channels, channels, 3, activation=F.relu_)

    def forward(self, x: Tensor) -> Tensor:
        pooled = corner_pool(self.over_rows(x), -2, to_end=self.to_end)
        pooled = pooled + corner_pool(self.over_columns(x), -1, to_end=self.to_end)
        return self.out(F.relu_(self.merge(pooled) + self.shortcut(x)))
