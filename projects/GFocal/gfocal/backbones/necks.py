"""Above and behind a feature pyramid: P6 and P7 without a ReLU, and the way back down to them."""

from collections.abc import Sequence
from typing import Any

from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from fvcore.nn import weight_init
from torch import Tensor, nn

__all__ = ["LinearP6P7", "PathAggregation"]


class LinearP6P7(nn.Module):
    """P6 and P7 as strided 3x3 convolutions of P5 (or of C5), with no ReLU between them.

    The released GFL weights were trained with it; FoveaBox's P6 is made of C5. Detectron2's
    ``LastLevelP6P7`` puts a ReLU before P7.

    Args:
        in_channels: channels of ``in_feature``.
        out_channels: channels of P6 and P7.
        in_feature: the input map of P6.
    """

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "p5"):
        super().__init__()
        self.num_levels = 2  # FPN needs it of a top block
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=2, padding=1)
        weight_init.c2_xavier_fill(self.p6)
        weight_init.c2_xavier_fill(self.p7)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> [P6, P7], each half the size of the one before."""
        p6 = self.p6(x)
        return [p6, self.p7(p6)]


class PathAggregation(Backbone):
    """A pyramid whose maps pass their details on to the coarser ones: the bottom-up path of PANet
    (https://arxiv.org/abs/1803.01534, Sec. 3.1).

    The finest map stays. A further one is added to the one before it, halved by a 3x3 convolution
    of stride 2; a 3x3 convolution follows. Without ReLUs.

    Args:
        pyramid: the maps' backbone, e.g. a Detectron2 FPN without a top block.
        in_features: names of its maps, finest first, each half the size of the one before. They
            keep their names.
        norm: of the convolutions, as ``detectron2.layers.get_norm`` takes it.
        top_block: makes further maps of the last one, e.g. :class:`LinearP6P7`.

    Raises:
        ValueError: the pyramid has no such map, or they are of several widths, or not each half the
            size of the one before.
    """

    def __init__(
        self,
        *,
        pyramid: Backbone,
        in_features: Sequence[str] = ("p3", "p4", "p5"),
        norm: str = "",
        top_block: nn.Module | None = None,
    ):
        super().__init__()
        shapes = pyramid.output_shape()
        if missing := [name for name in in_features if name not in shapes]:
            raise ValueError(f"in_features has {missing}; the pyramid has {sorted(shapes)}")
        strides = [shapes[name].stride for name in in_features]
        channels = {shapes[name].channels for name in in_features}
        if len(channels) != 1 or strides != [strides[0] * 2**i for i in range(len(strides))]:
            raise ValueError(
                f"in_features {list(in_features)} have channels {sorted(channels)} and strides "
                f"{strides}; expected one width, and twice the stride of the one before"
            )
        (width,) = channels
        self.pyramid, self.in_features, self.top_block = pyramid, list(in_features), top_block
        steps = range(len(strides) - 1)
        self.halve = nn.ModuleList(_conv(width, norm, stride=2) for _ in steps)
        self.merge = nn.ModuleList(_conv(width, norm, stride=1) for _ in steps)
        num_above: Any = getattr(top_block, "num_levels", 0)
        strides += [strides[-1] * 2**i for i in range(1, 1 + num_above)]
        self._shapes = {
            f"p{stride.bit_length() - 1}": ShapeSpec(channels=width, stride=stride)
            for stride in strides
        }

    @property
    def size_divisibility(self) -> int:
        return self.pyramid.size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return getattr(self.pyramid, "padding_constraints", {})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) -> {"p3": (N, width, H / 8, W / 8), ...}."""
        below = self.pyramid(x)
        maps = [below[self.in_features[0]]]
        for name, halve, merge in zip(self.in_features[1:], self.halve, self.merge):
            maps.append(merge(halve(maps[-1]) + below[name]))
        if self.top_block is not None:
            maps += self.top_block(maps[-1])
        return dict(zip(self._shapes, maps))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)


def _conv(width: int, norm: str, stride: int) -> Conv2d:
    conv = Conv2d(
        width,
        width,
        kernel_size=3,
        stride=stride,
        padding=1,
        bias=norm == "",
        norm=get_norm(norm, width),
    )
    weight_init.c2_xavier_fill(conv)
    return conv
