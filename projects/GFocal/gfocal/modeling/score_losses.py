"""The sum of a score's loss over a detector's labels, in one pass. score_maps.py has the losses."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits

from .numerics import at_least_float32, joint_logits
from .score_maps import NegativeWeight, ScoreMaps

__all__ = ["sparse_score_loss"]


def sparse_score_loss(
    cls_logits: Tensor,
    quality_logits: Tensor | None,
    positives: tuple[Tensor, Tensor],
    qualities: Tensor,
    valid: Tensor,
    maps: ScoreMaps,
    scale: float | Tensor = 1.0,
) -> Tensor:
    """The sum of a member's loss in one pass, for a detector's labels: nearly all of them are 0.

    It is the same number as that of dense labels and ``joint_logits`` (numerics.py), summed over
    the valid locations. But the sum and its gradient come from one sweep over the logits, in pieces
    that stay in the cache. Let z be the joint logit, p the joint score, c and g the factor and the
    exponent of the weight of negatives, and L = -log(1 - p) the cross entropy of the label 0. Then

        loss = c p^g L,        dloss/dz = c p^g (g (1 - p) L + p),   c p^(g + 1) if it is detached.

    With a and b the logits of class and quality, dz/da = sigmoid(-a) / (1 - p) and
    dz/db = sigmoid(-b) / (1 - p). The few positives are added as the difference of their losses as
    positives and as negatives.

    Args:
        cls_logits: (L, K), clipped to +-80; the loss is computed in at least float32.
        quality_logits: (L, 1), or None for a class score alone.
        positives: (locations (M,), classes (M,)), each pair once.
        qualities: (M,) q in [0, 1]; no gradient flows into them.
        valid: (L,) bool; other locations have no loss.
        maps: the member.
        scale: multiplies the sum, without a further pass. No gradient flows into it.

    Returns:
        A scalar. It can be differentiated once only.

    Raises:
        ValueError: if ``cls_logits``, ``quality_logits`` or ``valid`` has another shape.
    """
    shape, quality_shape = tuple(cls_logits.shape), None
    if quality_logits is not None:
        quality_shape = tuple(quality_logits.shape)
    rows = shape[:1]
    if len(shape) != 2 or quality_shape not in (None, (*rows, 1)) or tuple(valid.shape) != rows:
        raise ValueError(
            f"cls_logits, quality_logits and valid have shapes {shape}, {quality_shape} and "
            f"{tuple(valid.shape)}; expected (L, K), (L, 1) or None, and (L,)"
        )
    cls_logits = at_least_float32(cls_logits)
    if quality_logits is not None:
        quality_logits = quality_logits.to(cls_logits.dtype)
    if not torch.is_grad_enabled():  # autograd.Function would still be asked for gradients
        cls_logits = cls_logits.detach()
        quality_logits = None if quality_logits is None else quality_logits.detach()
    return _SparseScoreLoss.apply(
        cls_logits, quality_logits, positives, qualities.detach(), valid, maps, scale
    )


class _SparseScoreLoss(torch.autograd.Function):
    # Elements a piece: temporaries of 0.5 MB in float32, which stay in the cache.
    PIECE = 2**17

    @staticmethod
    def forward(ctx, cls_logits, quality_logits, positives, qualities, valid, maps, scale):
        num_locations, num_classes = cls_logits.shape
        negative = maps.negative
        gamma = negative.gamma
        differentiate = any(ctx.needs_input_grad[:2])
        cls_grad = torch.empty_like(cls_logits) if differentiate else None
        quality_grad = None
        if quality_logits is not None:
            quality, no_quality = quality_logits.sigmoid(), (-quality_logits).sigmoid()
            quality_grad = torch.empty_like(quality_logits) if differentiate else None
        weights = valid[:, None].to(cls_logits.dtype) * (scale * negative.factor)
        total = cls_logits.new_zeros(())
        # Pieces do not help on a GPU, and a launch for each would cost time.
        on_cpu = cls_logits.device.type == "cpu"
        step = max(1, _SparseScoreLoss.PIECE // num_classes if on_cpu else num_locations)
        for start in range(0, num_locations, step):
            rows = slice(start, start + step)
            e = cls_logits[rows].clamp(-80, 80).exp_()
            if quality_logits is None:
                odds = e
            else:  # p / (1 - p) = e^a q / (1 + e^a (1 - q))
                shared = (e * no_quality[rows]).add_(1)
                odds = (e / shared).mul_(quality[rows])
            y = odds + 1
            loss = y.log()
            complement = y.reciprocal()  # 1 - p
            # y is rounded: log(1 + odds) = log(y) + (odds - (y - 1)) / y
            loss.addcmul_(torch.sub(odds, y.sub_(1), out=y), complement)
            score = torch.mul(odds, complement, out=y)
            factor = (score.square() if gamma == 2 else score.pow(gamma)).mul_(weights[rows])
            loss.mul_(factor)
            total += loss.sum()
            if cls_grad is None:
                continue
            grad = torch.mul(factor, score, out=cls_grad[rows])  # dloss/dz
            if not negative.detached:
                grad.addcmul_(loss, complement, value=gamma)
            if quality_grad is not None:
                grad.div_(shared)  # sigmoid(-a) / (1 - p) = 1 / shared
                # sigmoid(-b) / (1 - p) = (1 - q) (1 + e^a) / shared
                torch.sum(e.add_(1).mul_(grad), dim=1, keepdim=True, out=quality_grad[rows])
        if quality_grad is not None:
            quality_grad.mul_(no_quality)
        total += _add_positives(
            cls_logits, quality_logits, positives, qualities, maps, scale, cls_grad, quality_grad
        )
        ctx.save_for_backward(cls_grad, quality_grad)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        grads = ctx.saved_tensors
        # On a GPU, to look at a number costs more than to multiply by it.
        if grad_output.device.type != "cpu" or grad_output != 1:
            grads = (None if grad is None else grad * grad_output for grad in grads)
        return (*grads, *[None] * 5)


def _add_positives(
    cls_logits, quality_logits, positives, qualities, maps, scale, cls_grad, quality_grad
):
    """The positives' losses less those as negatives, as a sum; their gradients are added."""
    locations, _ = positives
    inputs = [cls_logits[positives].clamp(-80, 80)]
    if quality_logits is not None:
        inputs.append(quality_logits[locations, 0])
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in inputs]
        logits = joint_logits(*inputs) if len(inputs) == 2 else inputs[0]
        qualities = qualities.to(logits.dtype)
        difference = _positive(logits, qualities, maps) - _negative(logits, maps.negative)
        difference = difference.sum() * scale
    if cls_grad is not None:
        grads = torch.autograd.grad(difference, inputs)
        cls_grad.index_put_(positives, grads[0], accumulate=True)
        if quality_grad is not None:
            quality_grad[:, 0].index_add_(0, locations, grads[1])
    return difference.detach()


def _positive(logits: Tensor, qualities: Tensor, maps: ScoreMaps) -> Tensor:
    labels = maps.target(logits.detach().sigmoid(), qualities).detach()
    bce = binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return maps.positive_weight(logits.sigmoid(), qualities) * bce


def _negative(logits: Tensor, weight: NegativeWeight) -> Tensor:
    bce = binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none")
    weights = weight.factor * logits.sigmoid().pow(weight.gamma)
    return (weights.detach() if weight.detached else weights) * bce
