"""SSD's head: a convolution for the classes and one for the boxes of each level, and what they say.

N images, R priors, C class channels of a prior.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["PriorPredictions", "SSDHead"]


class PriorPredictions(NamedTuple):
    """What the head says about every prior of every image.

    Attributes:
        cls_logits: (N, R, C); the class loss reads them.
        deltas: (N, R, 4) from the priors to the boxes, as ``Box2BoxTransform`` reads them.
    """

    cls_logits: Tensor
    deltas: Tensor

    def detach(self) -> "PriorPredictions":
        """The same numbers, without gradients."""
        return PriorPredictions(*(x.detach() for x in self))

    def first(self) -> "PriorPredictions":
        """Those of the first image."""
        return PriorPredictions(*(x[:1] for x in self))


class SSDHead(nn.Module):
    """A 3x3 convolution to the class channels and one to the deltas of each level.

    Args:
        in_channels: of each level, finest first.
        num_priors: shapes at a location, of each level.
        num_channels: C.
        initialize: sets the first weights and biases of a convolution to class channels. Those to
            deltas get Xavier's, and no bias.

    Raises:
        ValueError: if the two are not of as many levels, or C is less than 1.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        num_priors: Sequence[int],
        num_channels: int,
        initialize: Callable[[nn.Conv2d], None],
    ):
        super().__init__()
        if len(in_channels) != len(num_priors) or num_channels < 1:
            raise ValueError(
                f"got in_channels of {len(in_channels)} levels, num_priors of {len(num_priors)} "
                f"and {num_channels} class channels; expected as many levels, and at least 1"
            )
        self.num_channels = num_channels
        self.cls_logits, self.deltas = nn.ModuleList(), nn.ModuleList()
        for channels, count in zip(in_channels, num_priors):
            cls_logits = nn.Conv2d(channels, count * num_channels, 3, padding=1)
            deltas = nn.Conv2d(channels, count * 4, 3, padding=1)
            initialize(cls_logits)
            nn.init.xavier_uniform_(deltas.weight)
            nn.init.zeros_(deltas.get_parameter("bias"))
            self.cls_logits.append(cls_logits)
            self.deltas.append(deltas)

    def forward(self, features: Sequence[Tensor]) -> PriorPredictions:
        """(N, F_i, H_i, W_i) of each level, finest first -> predictions of all priors."""
        cls_logits, deltas = (
            torch.cat([_flatten(conv(x), size) for conv, x in zip(convs, features)], dim=1)
            for convs, size in ((self.cls_logits, self.num_channels), (self.deltas, 4))
        )
        return PriorPredictions(cls_logits, deltas)


def _flatten(x: Tensor, size: int) -> Tensor:
    """(N, A * size, H, W) -> (N, H * W * A, size)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size)
