"""SSD's head: a convolution for the classes and one for the boxes of each level, and what they say.

N images, R priors, C class channels of a prior.
"""

from collections.abc import Sequence
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
        prior_logit: where the class logits of an untrained head stand.

    Raises:
        ValueError: if the two are not of as many levels, or C is less than 1.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        num_priors: Sequence[int],
        num_channels: int,
        prior_logit: float = 0.0,
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
            self.cls_logits.append(nn.Conv2d(channels, count * num_channels, 3, padding=1))
            self.deltas.append(nn.Conv2d(channels, count * 4, 3, padding=1))
        for convs, bias in ((self.cls_logits, prior_logit), (self.deltas, 0.0)):
            for conv in convs:
                nn.init.xavier_uniform_(conv.get_parameter("weight"))
                nn.init.constant_(conv.get_parameter("bias"), bias)

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
