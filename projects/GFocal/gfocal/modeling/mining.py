"""Hard negatives: of the many locations without an object, those that the loss is largest for.

N images, R priors.

Source: SSD (https://arxiv.org/abs/1512.02325), Sec. 2.2, "Hard negative mining".
"""

import torch
from torch import Tensor

__all__ = ["contenders", "hard_negatives"]


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
    losses, share = losses.masked_fill(~negatives, -torch.inf), _share(num_positives, ratio)
    values, idxs = _largest(losses, share)
    places = torch.arange(values.shape[1], device=values.device)
    chosen = (places < share[:, None]) & (values > -torch.inf)
    images, columns = chosen.nonzero(as_tuple=True)
    return images, idxs[images, columns]


def contenders(
    bounds: Tensor, slack: float, negatives: Tensor, num_positives: Tensor, ratio: float
) -> Tensor:
    """The negatives that may be hard, where only bounds of the losses are known.

    Args:
        bounds: (N, R). A loss is at least as large as one at this bound and at most as large as one
            at ``bounds + slack``, in any increasing measure.
        slack: see there.
        negatives, num_positives, ratio: of :func:`hard_negatives`.

    Returns:
        (N, R) bool: all negatives that it can choose, and others.
    """
    bounds, share = bounds.masked_fill(~negatives, -torch.inf), _share(num_positives, ratio)
    values, _ = _largest(bounds, share)
    if values.shape[1] == 0:
        return torch.zeros_like(negatives)
    last = values.gather(1, (share[:, None] - 1).clamp(0, values.shape[1] - 1))
    # So written, whatever is not a number stays, and its image's loss is none either.
    return negatives & ~(bounds < last - slack) & (share[:, None] > 0)


def _share(num_positives: Tensor, ratio: float) -> Tensor:
    """(N,) how many negatives each image may have."""
    return (num_positives * ratio).floor().to(torch.int64)


def _largest(values: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row as many of the largest as any row needs, best first, and their places."""
    count = min(int(share.max()) if len(share) else 0, values.shape[1])
    return values.topk(count, dim=1)
