"""The focal losses of the paper on logits.

They are element-wise, as fvcore's ``sigmoid_focal_loss``: ``inputs`` are logits, ``targets`` are
dense, ``reduction`` is "none", "mean" or "sum". Weights and normalisers belong to the criterion.
Training runs QFL in another form, as the sum over a detector's sparse labels. GIoU is here because
torchvision's loss waits for a GPU, and fvcore's stops at a NaN before Detectron2 can name the
iteration.

Reference: Generalized Focal Loss (https://arxiv.org/abs/2006.04388).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .numerics import at_least_float32
from .score_losses import sparse_score_loss
from .score_maps import QualityFocal
from .settings import EXPONENT, check_settings

__all__ = [
    "distribution_focal_loss",
    "generalized_focal_loss",
    "generalized_iou_loss",
    "quality_focal_loss",
    "sparse_quality_focal_loss",
]


def quality_focal_loss(
    inputs: Tensor, targets: Tensor, beta: float = 2.0, reduction: str = "none"
) -> Tensor:
    """QFL, the focal loss for soft labels (Eq. 2): |y - s|^beta * BCE(s, y), s = sigmoid(inputs).

    At y = 1 and y = 0 it is the focal loss with gamma = beta and without alpha.

    Args:
        inputs: (...) logits of the joint class and quality score.
        targets: (...) y in [0, 1]: at the true class the IoU of predicted and true box, else 0.
        beta: how strongly easy examples are down-weighted; 0 or at least 1. (Between 0 and 1 the
            gradient is infinite at s = y.)
        reduction: "none", "mean" or "sum".

    Returns:
        (...) with "none", else a scalar.

    Raises:
        ValueError: if shapes differ, ``beta`` is another number or ``reduction`` is unknown.
    """
    check_same_shape(inputs, targets, "inputs", "targets")
    check_beta(beta)
    bce = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    return reduced((targets - inputs.sigmoid()).abs().pow(beta) * bce, reduction)


def sparse_quality_focal_loss(
    cls_logits: Tensor,
    quality_logits: Tensor | None,
    positives: tuple[Tensor, Tensor],
    targets: Tensor,
    valid: Tensor,
    beta: float = 2.0,
    scale: float | Tensor = 1.0,
) -> Tensor:
    """The sum of QFL in one pass, for a detector's labels: nearly all of them are 0.

    It is the same number as ``quality_focal_loss`` of ``joint_logits`` (numerics.py) and a dense
    label, summed over the valid locations. See
    :func:`gfocal.modeling.score_losses.sparse_score_loss`.

    Args:
        cls_logits: (L, K), clipped to +-80; the loss is computed in at least float32.
        quality_logits: (L, 1), or None for a class score alone.
        positives: (locations (M,), classes (M,)) of the labels that are not 0, each pair once.
        targets: (M,) their labels in [0, 1]; no gradient flows into them.
        valid: (L,) bool; other locations have no loss.
        beta: as in :func:`quality_focal_loss`.
        scale: multiplies the sum, without a further pass. No gradient flows into it.

    Returns:
        A scalar. It can be differentiated once only.

    Raises:
        ValueError: if ``beta`` is neither 0 nor at least 1, or ``cls_logits``, ``quality_logits``
            or ``valid`` has another shape.
    """
    maps = QualityFocal(beta)
    return sparse_score_loss(cls_logits, quality_logits, positives, targets, valid, maps, scale)


def distribution_focal_loss(inputs: Tensor, targets: Tensor, reduction: str = "none") -> Tensor:
    """DFL (Eq. 6): cross entropy on the two bins around the target, weighted by nearness.

    With i <= y <= i + 1 the loss is -((i + 1 - y) log S_i + (y - i) log S_{i+1}). It is smallest if
    all mass is on these two bins and the expectation is y.

    Args:
        inputs: (M, n+1) logits of the bins 0..n.
        targets: (M,) y in **bins**, 0 <= y < n. (The loss term clips them; this function does not.)
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
    return reduced(-(1 - right_weight) * log_left - right_weight * log_right, reduction)


def generalized_focal_loss(
    p_left: Tensor,
    p_right: Tensor,
    targets: Tensor,
    y_left: float | Tensor = 0.0,
    y_right: float | Tensor = 1.0,
    beta: float = 2.0,
    reduction: str = "none",
) -> Tensor:
    """GFL (Eq. 7). Focal loss, QFL and DFL are special cases of it (App. C):

        |y - (y_l p_l + y_r p_r)|^beta * -((y_r - y) log p_l + (y - y_l) log p_r)

    - focal loss: y in {0, 1}, p_r = s, p_l = 1 - s, y_l = 0, y_r = 1, beta = gamma;
    - QFL: the same with a soft y in [0, 1];
    - DFL: p_l, p_r the probabilities of the bins y_l and y_r = y_l + 1 around y, beta = 0.

    Training uses the special cases, on logits (:func:`quality_focal_loss`,
    :func:`distribution_focal_loss`). This definition, on probabilities, ties them together.

    Args:
        p_left, p_right: (...) probabilities of the two values.
        targets: (...) continuous label y between ``y_left`` and ``y_right``.
        y_left, y_right: the two values, scalars or broadcastable tensors.
        beta: modulating exponent; 0 or at least 1.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: if shapes differ, ``beta`` is another number or ``reduction`` is unknown.
    """
    check_same_shape(p_left, targets, "p_left", "targets")
    check_same_shape(p_right, targets, "p_right", "targets")
    check_beta(beta)
    estimate = y_left * p_left + y_right * p_right
    # xlogy, so that a probability of 0 with weight 0 contributes 0
    cross_entropy = -(
        torch.xlogy(y_right - targets, p_left) + torch.xlogy(targets - y_left, p_right)
    )
    return reduced((targets - estimate).abs().pow(beta) * cross_entropy, reduction)


def generalized_iou_loss(
    boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7
) -> Tensor:
    """1 - GIoU of each box with the one at the same place (https://arxiv.org/abs/1902.09630,
    Alg. 1): 1 - IoU + the share of the smallest enclosing box that neither box covers.

    Args:
        boxes1: (..., 4) XYXY. A predicted side may lie on the wrong side of the one opposite, as
            bins below 0 allow: the box has a negative area then, and a loss above 1 that grows.
        boxes2: (..., 4) XYXY in the same unit, with x2 >= x1 and y2 >= y1.
        reduction: "none", "mean" or "sum".
        eps: added to the divisors.

    Returns:
        (...) in [0, 2] with "none" (but see ``boxes1``), else a scalar; in at least float32.

    Raises:
        ValueError: if shapes differ or ``reduction`` is unknown.
    """
    check_same_shape(boxes1, boxes2, "boxes1", "boxes2")
    left_top1, right_bottom1 = at_least_float32(boxes1).split(2, dim=-1)
    left_top2, right_bottom2 = at_least_float32(boxes2).split(2, dim=-1)
    inner = torch.minimum(right_bottom1, right_bottom2) - torch.maximum(left_top1, left_top2)
    outer = torch.maximum(right_bottom1, right_bottom2) - torch.minimum(left_top1, left_top2)
    width1, height1 = (right_bottom1 - left_top1).unbind(dim=-1)
    # Two negative sides are no positive area: the loss would have no lower bound.
    area1 = torch.minimum(width1 * height1, width1 * height1.abs())
    area2, intersection, enclosing = (
        sides[..., 0] * sides[..., 1]
        for sides in (right_bottom2 - left_top2, inner.clamp(0), outer)
    )
    union = area1 + area2 - intersection
    loss = 1 - intersection / (union + eps) + (enclosing - union) / (enclosing + eps)
    return reduced(loss, reduction)


def check_beta(beta: float) -> None:
    """Raise ValueError unless ``beta`` is 0 or at least 1."""
    check_settings(EXPONENT, beta=beta)


def check_same_shape(a: Tensor, b: Tensor, a_name: str, b_name: str) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"{a_name} have shape {tuple(a.shape)} and {b_name} {tuple(b.shape)}; expected the same"
        )


def reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    raise ValueError(f'reduction is {reduction!r}; expected "none", "mean" or "sum"')
