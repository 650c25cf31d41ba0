"""A side as the softplus of a channel, which grows slower than FCOS's exponential, as the head's
``box_representation``."""

from torch import Tensor, nn
from torch.nn.functional import softplus


class SoftplusDistance(nn.Module):
    """Answers positive distances in strides; it has no bins, so there is no DFL and no DGQP."""

    num_channels = 1

    def forward(self, box_logits: Tensor) -> Tensor:
        """(..., 4, 1) -> (..., 4)."""
        return softplus(box_logits[..., 0].float())
