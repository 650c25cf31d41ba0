"""The family of losses of a score that learns quality: what is label, and what is weight.

With p the joint score of a location and class, and q the measured quality of a positive:

    positive    w+(p, q) BCE(p, y(p, q))
    negative    w-(p) BCE(p, 0),  w-(p) = factor * p^gamma

A member is an object with the maps y and w+, and the numbers of w- (:class:`ScoreMaps`). A label y
has never a gradient. A weight has one, unless its source detaches it; each member says so.

| member | y | w+ | w- |
|---|---|---|---|
| focal | 1 | alpha (1 - p)^gamma | (1 - alpha) p^gamma |
| qfl | q | abs(q - p)^beta | p^beta |
| vfl | q | q | alpha p^gamma |
| mal | q^gamma | 1 | p^gamma, detached |
| ia_bce | p^alpha q^(1 - alpha) | 1 | p^2 |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .settings import EXPONENT, IOU, NOT_NEGATIVE, check_settings

__all__ = [
    "SCORE_MAPS",
    "Focal",
    "IoUAware",
    "MatchabilityAware",
    "NegativeWeight",
    "QualityFocal",
    "ScoreMaps",
    "Varifocal",
    "score_maps",
]


@dataclass(frozen=True)
class NegativeWeight:
    """w-(p) = factor * p^gamma.

    Attributes:
        factor: at least 0.
        gamma: 0 or at least 1.
        detached: whether the weight is a constant to the gradient.

    Raises:
        ValueError: for a number out of its range.
    """

    factor: float = 1.0
    gamma: float = 2.0
    detached: bool = False

    def __post_init__(self) -> None:
        check_settings(NOT_NEGATIVE, factor=self.factor)
        check_settings(EXPONENT, gamma=self.gamma)


class ScoreMaps(Protocol):
    """A member of the family. Both maps are element-wise, on the scores p in [0, 1] and the
    qualities q in [0, 1] of the positives, (M,) each.

    Attributes:
        negative: the weight of negatives.
    """

    negative: NegativeWeight

    def target(self, p: Tensor, q: Tensor) -> Tensor:
        """-> (M,) labels in [0, 1]. ``p`` is detached."""

    def positive_weight(self, p: Tensor, q: Tensor) -> Tensor:
        """-> (M,), at least 0. A gradient flows through ``p``: use ``p.detach()`` to stop it."""


class Focal:
    """Focal loss (https://arxiv.org/abs/1708.02002, Eq. 5); the quality is not read. Both weights
    have a gradient.

    Args:
        alpha: weight of positives, 1 - alpha of negatives.
        gamma: 0 or at least 1.

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0):
        check_settings(IOU, alpha=alpha)
        self.alpha = alpha
        self.negative = NegativeWeight(1 - alpha, gamma)

    def target(self, p: Tensor, q: Tensor) -> Tensor:
        return torch.ones_like(q)

    def positive_weight(self, p: Tensor, q: Tensor) -> Tensor:
        return self.alpha * (1 - p).pow(self.negative.gamma)


class QualityFocal:
    """QFL (https://arxiv.org/abs/2006.04388, Eq. 2). Both weights have a gradient, as in the
    official code.

    Args:
        beta: 0 or at least 1.

    Raises:
        ValueError: if ``beta`` is another number.
    """

    def __init__(self, beta: float = 2.0):
        check_settings(EXPONENT, beta=beta)
        self.beta = beta
        self.negative = NegativeWeight(gamma=beta)

    def target(self, p: Tensor, q: Tensor) -> Tensor:
        return q

    def positive_weight(self, p: Tensor, q: Tensor) -> Tensor:
        return (q - p).abs().pow(self.beta)


class Varifocal:
    """Varifocal loss (https://arxiv.org/abs/2008.13367, Eq. 2). The weight of negatives has a
    gradient, as in mmdetection's ``varifocal_loss.py``. (RT-DETR and its descendants detach it.) As
    there, a positive of quality 0 is a negative.

    Args:
        alpha: factor of the negatives' weight.
        gamma: 0 or at least 1.

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0):
        check_settings(NOT_NEGATIVE, alpha=alpha)
        self.negative = NegativeWeight(alpha, gamma)

    def target(self, p: Tensor, q: Tensor) -> Tensor:
        return q

    def positive_weight(self, p: Tensor, q: Tensor) -> Tensor:
        return torch.where(q > 0, q, self.negative.factor * p.pow(self.negative.gamma))


class MatchabilityAware:
    """MAL of DEIM (https://arxiv.org/abs/2412.04234). The weight of negatives is detached, as in
    DEIM's ``deim_criterion.py``; positives weigh 1.

    Args:
        gamma: exponent of the label and of the negatives' weight; 0 or at least 1.

    Raises:
        ValueError: if ``gamma`` is another number.
    """

    def __init__(self, gamma: float = 1.5):
        self.negative = NegativeWeight(gamma=gamma, detached=True)

    def target(self, p: Tensor, q: Tensor) -> Tensor:
        return q.pow(self.negative.gamma)

    def positive_weight(self, p: Tensor, q: Tensor) -> Tensor:
        return torch.ones_like(q)


class IoUAware:
    """IA-BCE of Align-DETR (https://arxiv.org/abs/2304.07527), as RF-DETR uses it: without
    Align-DETR's weights by rank.

    The label t = p^alpha q^(1 - alpha), at least 0.01, is detached. A positive has t on the side of
    log p and 1 - t on that of log(1 - p): cross entropy of weight 1. The weight of negatives, p^2,
    has a gradient.

    Args:
        alpha: how much the label follows the score.

    Raises:
        ValueError: if ``alpha`` is not in [0, 1].
    """

    def __init__(self, alpha: float = 0.25):
        check_settings(IOU, alpha=alpha)
        self.alpha = alpha
        self.negative = NegativeWeight()

    def target(self, p: Tensor, q: Tensor) -> Tensor:
        return (p.pow(self.alpha) * q.pow(1 - self.alpha)).clamp(min=0.01)

    def positive_weight(self, p: Tensor, q: Tensor) -> Tensor:
        return torch.ones_like(q)


# The members by name, each with the numbers of its source.
SCORE_MAPS: dict[str, Callable[[], ScoreMaps]] = {
    "focal": Focal,
    "qfl": QualityFocal,
    "vfl": Varifocal,
    "mal": MatchabilityAware,
    "ia_bce": IoUAware,
}


def score_maps(maps: ScoreMaps | str) -> ScoreMaps:
    """A member by its name in SCORE_MAPS; any other object is tried on nine pairs of p and q.

    Raises:
        ValueError: there is no such name, a map or the weight of negatives is missing, or a map
            answers another shape, a label outside of [0, 1] or a negative weight.
    """
    if isinstance(maps, str):
        if maps not in SCORE_MAPS:
            raise ValueError(
                f"maps is {maps!r}; expected one of {', '.join(map(repr, SCORE_MAPS))}, or an "
                "object with target, positive_weight and negative"
            )
        return SCORE_MAPS[maps]()
    name = type(maps).__name__
    complete = callable(getattr(maps, "target", None))
    complete &= callable(getattr(maps, "positive_weight", None))
    if not (complete and isinstance(getattr(maps, "negative", None), NegativeWeight)):
        raise ValueError(
            f"maps is {maps!r}; expected a name, or an object with the methods target and "
            "positive_weight, and a NegativeWeight as negative"
        )
    p = torch.tensor([0.01, 0.5, 0.99], device="cpu").repeat(3)
    q = torch.tensor([0.0, 0.5, 1.0], device="cpu").repeat_interleave(3)
    for part, limit in (("target", 1.0), ("positive_weight", float("inf"))):
        values = getattr(maps, part)(p, q)
        if not isinstance(values, Tensor) or values.shape != p.shape:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"{name}.{part} answered {got} for p and q of shape (9,); expected a number for "
                "each positive, (9,)"
            )
        if not ((values >= 0) & (values <= limit)).all():
            raise ValueError(
                f"{name}.{part} answered {values.tolist()} for p {p.tolist()} and q {q.tolist()}; "
                f"expected numbers in [0, {limit}]"
            )
    return maps
