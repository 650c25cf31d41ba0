"""The top of a feature pyramid: P6 and P7 without a ReLU."""

from fvcore.nn import weight_init
from torch import Tensor, nn

__all__ = ["LinearP6P7"]


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
