"""The focal losses of the paper, element-wise on logits.

Like fvcore's ``sigmoid_focal_loss``: ``inputs`` are logits, ``targets`` dense, ``reduction`` is
"none", "mean" or "sum"; weights and normalisers are the criterion's. GIoU is torchvision's
(``generalized_box_iou_loss``; fvcore's stops at a NaN before Detectron2 can name the iteration).

Reference: Generalized Focal Loss (https://arxiv.org/abs/2006.04388).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["distribution_focal_loss", "generalized_focal_loss", "quality_focal_loss"]


def quality_focal_loss(
    inputs: Tensor, targets: Tensor, beta: float = 2.0, reduction: str = "none"
) -> Tensor:
    """QFL, the focal loss for soft labels (Eq. 5): |y - s|^beta * BCE(s, y), s = sigmoid(inputs).

    At y = 1 and y = 0 it is the focal loss of gamma = beta without alpha.

    Args:
        inputs: (...) logits of the joint class and quality score.
        targets: (...) y in [0, 1]: the IoU of the predicted with the true box at its class, else 0.
        beta: how strongly easy examples are down-weighted; 0 or at least 1 (between them the
            gradient is infinite where s = y).
        reduction: "none", "mean" or "sum".

    Returns:
        (...) with "none", else a scalar.

    Raises:
        ValueError: if shapes differ, ``beta`` is another number or ``reduction`` is unknown.
    """
    _check_same_shape(inputs, targets, "inputs", "targets")
    check_beta(beta)
    bce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    return _reduce((targets - inputs.sigmoid()).abs().pow(beta) * bce, reduction)


def distribution_focal_loss(inputs: Tensor, targets: Tensor, reduction: str = "none") -> Tensor:
    """DFL (Eq. 6): cross entropy on the two bins around the target, weighted by nearness.

    With i <= y <= i + 1 the loss is -((i + 1 - y) log S_i + (y - i) log S_{i+1}), smallest where
    all mass is on these two bins and the expectation is y.

    Args:
        inputs: (M, n+1) logits of the bins 0..n.
        targets: (M,) y in **bins**, 0 <= y < n. (The criterion clips; this function does not.)
        reduction: "none", "mean" or "sum".

    Returns:
        (M,) with "none", else a scalar.

    Raises:
        ValueError: if the shapes do not fit or ``reduction`` is unknown.
    """
    if inputs.dim() != 2 or targets.shape != inputs.shape[:1]:
        raise ValueError(
            f"inputs have shape {tuple(inputs.shape)} and targets {tuple(targets.shape)}; "
            "expected (M, n+1) logits and (M,) targets"
        )
    left = targets.long()
    right_weight = targets - left
    log_probs = inputs.log_softmax(dim=-1)
    log_left = log_probs.gather(1, left[:, None]).squeeze(1)
    log_right = log_probs.gather(1, left[:, None] + 1).squeeze(1)
    return _reduce(-(1 - right_weight) * log_left - right_weight * log_right, reduction)


def generalized_focal_loss(
    p_left: Tensor,
    p_right: Tensor,
    targets: Tensor,
    y_left: float | Tensor = 0.0,
    y_right: float | Tensor = 1.0,
    beta: float = 2.0,
    reduction: str = "none",
) -> Tensor:
    """GFL (Eq. 7), of which focal loss, QFL and DFL are special cases (App. C):

        |y - (y_l p_l + y_r p_r)|^beta * -((y_r - y) log p_l + (y - y_l) log p_r)

    - focal loss: y in {0, 1}, p_r = s, p_l = 1 - s, y_l = 0, y_r = 1, beta = gamma;
    - QFL: the same with a soft y in [0, 1];
    - DFL: p_l, p_r the probabilities of the bins y_l and y_r = y_l + 1 around y, beta = 0.

    The special cases on logits (:func:`quality_focal_loss`, :func:`distribution_focal_loss`) are
    what training uses: this is the definition that ties them together, on probabilities.

    Args:
        p_left, p_right: (...) probabilities of the two values.
        targets: (...) continuous label y between ``y_left`` and ``y_right``.
        y_left, y_right: the two values, scalars or broadcastable tensors.
        beta: modulating exponent; 0 or at least 1.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: if shapes differ, ``beta`` is another number or ``reduction`` is unknown.
    """
    _check_same_shape(p_left, targets, "p_left", "targets")
    _check_same_shape(p_right, targets, "p_right", "targets")
    check_beta(beta)
    estimate = y_left * p_left + y_right * p_right
    # xlogy, so that a probability of 0 with weight 0 contributes 0
    cross_entropy = -(
        torch.xlogy(y_right - targets, p_left) + torch.xlogy(targets - y_left, p_right)
    )
    return _reduce((targets - estimate).abs().pow(beta) * cross_entropy, reduction)


def check_beta(beta: float) -> None:
    """Raise ValueError unless ``beta`` is 0 or at least 1."""
    if not (beta == 0 or beta >= 1):
        raise ValueError(f"beta is {beta}; expected 0 or at least 1")


def _check_same_shape(a: Tensor, b: Tensor, a_name: str, b_name: str) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"{a_name} have shape {tuple(a.shape)} and {b_name} {tuple(b.shape)}; expected the same"
        )


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    raise ValueError(f'reduction is {reduction!r}; expected "none", "mean" or "sum"')
