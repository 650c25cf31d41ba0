"""The class losses of a detector with priors. Each also says how its logits become scores.

A class loss has, beside ``forward(inputs: PriorLossInputs) -> scalar``: ``num_channels(K)``, how
many logits a prior has; ``scores(logits)``, those of the K classes; and ``initialize(conv)``, which
sets the first weights and biases of a convolution that answers logits.

N images, R priors, K classes, C channels, M positive priors of the whole batch.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .losses import check_beta, sparse_quality_focal_loss
from .mining import contenders, hard_negatives
from .numerics import at_least_float32
from .settings import NOT_NEGATIVE, PROBABILITY, check_settings

__all__ = ["ClassLoss", "PriorLossInputs", "SigmoidQualityFocalLoss", "SoftmaxHardNegativeLoss"]


class PriorLossInputs(NamedTuple):
    """The input of a class loss: the batch, and its M positive priors, gathered once.

    Attributes:
        cls_logits: (N, R, C).
        negatives: (N, R) bool. What is neither positive nor negative takes no part.
        fg_idxs: (image (M,), prior (M,)) of the positives.
        fg_labels: (M,) their classes.
        fg_ious: (M,) IoU of predicted and true box; detached.
        num_positives: (N,) of each image.
        divisor: () of the loss.
    """

    cls_logits: Tensor
    negatives: Tensor
    fg_idxs: tuple[Tensor, Tensor]
    fg_labels: Tensor
    fg_ious: Tensor
    num_positives: Tensor
    divisor: Tensor


class ClassLoss(Protocol):
    """What SSD asks of the loss of its classes."""

    def num_channels(self, num_classes: int) -> int: ...

    def scores(self, logits: Tensor) -> Tensor: ...

    def initialize(self, conv: nn.Conv2d) -> None: ...

    def __call__(self, inputs: PriorLossInputs) -> Tensor: ...


class SoftmaxHardNegativeLoss(nn.Module):
    """SSD's: cross entropy of the softmax over K classes and background, which is the last, of all
    positives and of the hardest negatives.

    Args:
        negative_ratio: negatives a positive, see :func:`gfocal.modeling.mining.hard_negatives`.
        weight: multiplies the loss.

    Raises:
        ValueError: for a negative number.
    """

    # Logits a piece: temporaries of 0.5 MB in float32, which stay in the cache.
    PIECE = 2**17

    def __init__(self, *, negative_ratio: float = 3.0, weight: float = 1.0):
        super().__init__()
        check_settings(NOT_NEGATIVE, negative_ratio=negative_ratio, weight=weight)
        self.negative_ratio = negative_ratio
        self.weight = weight

    def num_channels(self, num_classes: int) -> int:
        return num_classes + 1

    def scores(self, logits: Tensor) -> Tensor:
        """(..., K + 1) -> (..., K)."""
        return at_least_float32(logits).softmax(dim=-1)[..., :-1]

    def initialize(self, conv: nn.Conv2d) -> None:
        nn.init.xavier_uniform_(conv.weight)
        nn.init.zeros_(conv.get_parameter("bias"))

    def forward(self, inputs: PriorLossInputs) -> Tensor:
        logits = inputs.cls_logits
        num_priors, background = logits.shape[1], logits.shape[2] - 1
        # Only the losses of what is chosen need a gradient.
        images, priors = self._hard_negatives(logits.detach(), inputs)
        fg_images, fg_priors = inputs.fg_idxs
        rows = torch.cat([fg_images, images]) * num_priors + torch.cat([fg_priors, priors])
        labels = torch.cat([inputs.fg_labels, torch.full_like(images, background)])
        chosen = at_least_float32(logits.flatten(0, 1).index_select(0, rows))
        loss = F.cross_entropy(chosen, labels, reduction="sum")
        return self.weight * loss / inputs.divisor

    def _hard_negatives(self, logits: Tensor, inputs: PriorLossInputs) -> tuple[Tensor, Tensor]:
        """Images (S,) and priors (S,)."""
        # With m by how much the best of K classes exceeds the background, the cross entropy is
        # between log(1 + e^m) and log(1 + K e^m), which is the former at m + log K. So most priors
        # need no exponential. (The margin is for rounding.)
        bounds = at_least_float32(logits[..., :-1].amax(dim=-1)) - logits[..., -1]
        slack = math.log(logits.shape[-1] - 1) + 0.01
        share = (inputs.num_positives, self.negative_ratio)
        candidates = contenders(bounds, slack, inputs.negatives, *share)
        rows = candidates.flatten().nonzero().squeeze(1)
        # Pieces do not help on a GPU, and a launch for each would cost time.
        step = max(1, self.PIECE // logits.shape[-1] if logits.device.type == "cpu" else len(rows))
        pieces = (logits.flatten(0, 1).index_select(0, piece) for piece in rows.split(step))
        pieces = (at_least_float32(piece) for piece in pieces)
        losses = torch.cat([x.logsumexp(dim=1) - x[:, -1] for x in pieces])
        dense = bounds.new_zeros(bounds.numel()).index_copy(0, rows, losses.to(bounds.dtype))
        return hard_negatives(dense.view_as(bounds), candidates, *share)


class SigmoidQualityFocalLoss(nn.Module):
    """Quality focal loss (https://arxiv.org/abs/2006.04388, Eq. 2) of K sigmoid scores without a
    background channel, over all positives and negatives: nothing is mined.

    The label of a positive at its class is the IoU of its predicted box with the true one. The
    paper's Table 1b has SSD with QFL, but does not say how; these choices are ours, see
    docs/paper_vs_code.md.

    Args:
        beta: exponent of the modulating factor; 0 or at least 1.
        weight: multiplies the loss.
        prior_prob: score that an untrained head gives to everything.

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(self, *, beta: float = 2.0, weight: float = 1.0, prior_prob: float = 0.01):
        super().__init__()
        check_beta(beta)
        check_settings(NOT_NEGATIVE, weight=weight)
        check_settings(PROBABILITY, prior_prob=prior_prob)
        self.beta = beta
        self.weight = weight
        self.prior_logit = math.log(prior_prob / (1 - prior_prob))

    def num_channels(self, num_classes: int) -> int:
        return num_classes

    def scores(self, logits: Tensor) -> Tensor:
        """(..., K) -> (..., K)."""
        return at_least_float32(logits).sigmoid()

    def initialize(self, conv: nn.Conv2d) -> None:
        # Weights as large as Xavier's would drown the prior: conv4_3 has a norm of 20.
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.constant_(conv.get_parameter("bias"), self.prior_logit)

    def forward(self, inputs: PriorLossInputs) -> Tensor:
        images, priors = inputs.fg_idxs
        valid = inputs.negatives.flatten()
        rows = images * inputs.cls_logits.shape[1] + priors
        return sparse_quality_focal_loss(
            inputs.cls_logits.flatten(0, 1),
            None,
            (rows, inputs.fg_labels),
            inputs.fg_ious,
            valid=valid.index_fill(0, rows, True),
            beta=self.beta,
            scale=self.weight / inputs.divisor,
        )
