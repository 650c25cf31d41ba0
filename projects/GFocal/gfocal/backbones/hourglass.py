"""The stacked hourglass network of CornerNet (https://arxiv.org/abs/1808.01244, Sec. 3.5).

It halves the size by strides, not by pooling, and a skip has residual blocks of its own.
"""

from collections.abc import Sequence
from itertools import pairwise

from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Hourglass"]


class Hourglass(Backbone):
    """A stem of stride 4, then hourglasses one after the other. By default it is Hourglass-104.

    The map of stack i (from 1) is called "stack{i}". Each has stride 4 and ``out_channels``.

    Args:
        in_channels: of the images.
        channels: of an hourglass, first at stride 4, then after each halving. So their number, less
            one, is how often the size is halved.
        blocks: residual blocks at each of these sizes.
        num_stacks: number of hourglasses.
        out_channels: of the maps.
        norm: as ``detectron2.layers.get_norm`` takes it.

    Raises:
        ValueError: ``channels`` and ``blocks`` are not of the same length, or there is no halving
            or no stack.
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: Sequence[int] = (256, 256, 384, 384, 384, 512),
        blocks: Sequence[int] = (2, 2, 2, 2, 2, 4),
        num_stacks: int = 2,
        out_channels: int = 256,
        norm: str = "BN",
    ):
        super().__init__()
        if len(channels) != len(blocks) or len(channels) < 2 or min(*channels, *blocks) < 1:
            raise ValueError(
                f"channels are {list(channels)} and blocks {list(blocks)}; expected a positive "
                "number of both for each size, and at least two sizes"
            )
        if num_stacks < 1:
            raise ValueError(f"num_stacks is {num_stacks}; expected at least 1")
        width = channels[0]
        self.stem = nn.Sequential(
            _conv(in_channels, width // 2, 7, norm, stride=2, activation=F.relu_),
            _Residual(width // 2, width, stride=2, norm=norm),
        )
        self.hourglasses = nn.ModuleList(
            _Hourglass(channels, blocks, norm) for _ in range(num_stacks)
        )
        self.outputs = nn.ModuleList(
            _conv(width, out_channels, 3, norm, activation=F.relu_) for _ in range(num_stacks)
        )
        # From a stack to the next: of its input, of its map, and of their sum.
        between = range(num_stacks - 1)
        self.from_inputs = nn.ModuleList(_conv(width, width, 1, norm) for _ in between)
        self.from_outputs = nn.ModuleList(_conv(out_channels, width, 1, norm) for _ in between)
        self.merges = nn.ModuleList(_Residual(width, width, norm=norm) for _ in between)
        self.num_halvings = len(channels) - 1
        self._out_features = [f"stack{i + 1}" for i in range(num_stacks)]
        self._out_channels = out_channels

    @property
    def size_divisibility(self) -> int:
        return 4 * 2**self.num_halvings

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {x: ShapeSpec(channels=self._out_channels, stride=4) for x in self._out_features}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: (N, in_channels, H, W); H and W multiples of ``size_divisibility``.

        Returns:
            {"stack1": (N, out_channels, H / 4, W / 4), ...}
        """
        x = self.stem(x)
        maps: dict[str, Tensor] = {}
        for i, name in enumerate(self._out_features):
            if i > 0:
                last = maps[self._out_features[i - 1]]
                x = F.relu_(self.from_inputs[i - 1](x) + self.from_outputs[i - 1](last))
                x = self.merges[i - 1](x)
            maps[name] = self.outputs[i](self.hourglasses[i](x))
        return maps


class _Hourglass(nn.Module):
    """Half the size, an inner hourglass, back to the size, and a skip.

    Args:
        channels, blocks: at this size and the smaller ones; of two sizes the inner one is blocks.
        norm: as ``detectron2.layers.get_norm`` takes it.
    """

    def __init__(self, channels: Sequence[int], blocks: Sequence[int], norm: str):
        super().__init__()
        own, low = channels[:2]
        self.skip = _residuals([own] * (blocks[0] + 1), norm)
        self.down = _residuals([own] + [low] * blocks[0], norm, stride=2)
        self.inner = (
            _Hourglass(channels[1:], blocks[1:], norm)
            if len(channels) > 2
            else _residuals([low] * (blocks[1] + 1), norm)
        )
        self.up = _residuals([low] * blocks[0] + [own], norm)

    def forward(self, x: Tensor) -> Tensor:
        low = self.up(self.inner(self.down(x)))
        return self.skip(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")


class _Residual(BasicBlock):
    """Detectron2's block, with a shortcut layer wherever there is a stride. (Detectron2's has none
    between equal numbers of channels.)"""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = "BN"):
        super().__init__(in_channels, out_channels, stride=stride, norm=norm)
        if stride != 1 and in_channels == out_channels:
            self.shortcut = _conv(in_channels, out_channels, 1, norm, stride=stride)


def _residuals(channels: Sequence[int], norm: str, stride: int = 1) -> nn.Sequential:
    """Blocks from each number of channels to the next; the first one has the stride."""
    return nn.Sequential(
        *(
            _Residual(a, b, stride=stride if i == 0 else 1, norm=norm)
            for i, (a, b) in enumerate(pairwise(channels))
        )
    )


def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: str, **kwargs) -> Conv2d:
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        **kwargs,
    )
