"""FeatureAlign: the features of the class branch move to the predicted box.

Reference: FoveaBox (https://arxiv.org/abs/1904.03797).
"""

import math

from torch import Tensor, nn

from .numerics import at_least_float32

__all__ = ["FeatureAlign"]

_MAX_DISTANCE = 1024.0  # keeps exp finite


class FeatureAlign(nn.Module):
    """A deformable convolution whose offsets are a linear function of the four distances of the
    predicted box, the exponentials of its channels. A ReLU follows.

    The gradient flows through the offsets into the boxes, as in the published code.

    Args:
        conv: the deformable convolution of a 3x3 kernel, called as ``conv(features, offsets)``,
            e.g. :class:`gfocal.backbones.deformable.DeformConv2d`.
        groups: groups of input channels with offsets of their own.
    """

    def __init__(self, *, conv: nn.Module, groups: int = 4):
        super().__init__()
        self.offset = nn.Conv2d(4, groups * 2 * 9, kernel_size=1, bias=False)
        self.conv = conv
        nn.init.normal_(self.offset.weight, std=0.1)
        nn.init.normal_(conv.get_parameter("weight"), std=0.01)

    def check_num_channels(self, num_channels: int) -> None:
        """Raises ValueError if a side has more channels than one."""
        if num_channels != 1:
            raise ValueError(
                f"a side has {num_channels} channels; FeatureAlign reads one, the logarithm of a "
                "distance, e.g. of LogDistance"
            )

    def forward(self, features: Tensor, box_logits: Tensor) -> Tensor:
        """
        Args:
            features: (N, F, H, W).
            box_logits: (N, 4, H, W).

        Returns:
            (N, F, H, W).
        """
        distances = at_least_float32(box_logits).clamp(max=math.log(_MAX_DISTANCE)).exp()
        offsets = self.offset(distances.to(self.offset.weight.dtype))
        return self.conv(features, offsets).relu()
