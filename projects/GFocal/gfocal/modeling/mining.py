"""Hard negatives: of the many locations without an object, those that the loss is largest for.

N images, R priors. Source: SSD (https://arxiv.org/abs/1512.02325), Sec. 2.2, "Hard negative mining".
"""

import torch
from torch import Tensor

__all__ = ["hard_negatives"]


def hard_negatives(
    losses: Tensor, negatives: Tensor, num_positives: Tensor, ratio: float
) -> tuple[Tensor, Tensor]:
    """The negatives with the largest losses: of each image ``ratio`` times as many as it has
    positives, or all if there are fewer. An image without positives has none.

    Which of several negatives with the same loss are chosen is not defined; the sum of the chosen
    losses does not depend on it.

    Args:
        losses: (N, R) of each prior as a negative.
        negatives: (N, R) bool.
        num_positives: (N,) of each image.
        ratio: negatives a positive; the product is rounded down.

    Returns:
        The images (S,) and priors (S,) of the chosen ones.
    """
    wanted = (num_positives * ratio).floor()
    largest = min(int(wanted.max()) if len(wanted) else 0, losses.shape[1])
    losses = losses.masked_fill(~negatives, -torch.inf)
    values, idxs = losses.topk(largest, dim=1)
    places = torch.arange(largest, device=values.device)
    chosen = (places < wanted[:, None]) & (values > -torch.inf)
    images, columns = chosen.nonzero(as_tuple=True)
    return images, idxs[images, columns]
