"""Numbers in the precision that they need, on the device where they are."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["at_least_float32", "has_false", "is_traced", "joint_logits", "to_device"]


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` itself, or a copy in float32: half precision is too coarse for boxes and scores."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def has_false(mask: Tensor) -> bool:
    """Whether a bool tensor has a False. It does not wait for a GPU: there the answer is no, and a
    False is an assertion of the device, a little later."""
    try:
        torch._assert_async(mask.all())
    except RuntimeError:
        return True
    return False


def is_traced() -> bool:
    """Whether this runs for a graph: in torch.jit.trace, torch.export or torch.onnx.export."""
    exporting = getattr(getattr(torch, "compiler", None), "is_exporting", bool)
    return torch.jit.is_tracing() or exporting()


def joint_logits(cls_logits: Tensor, quality_logits: Tensor) -> Tensor:
    """Logit of ``sigmoid(cls_logits) * sigmoid(quality_logits)`` (GFLV2 Eq. 3).

    With a and b the logits and p the product, ``1/p - 1 = e^-a + e^-b + e^(-a-b)``. The negative
    logarithm of this sum is the result. It is computed in the log domain, in at least float32. So
    GFLV2 can use QFL on logits, and no binary cross entropy sees a rounded probability.

    Args:
        cls_logits: (..., K).
        quality_logits: broadcastable to it, e.g. (..., 1).

    Returns:
        (..., K) in at least float32.
    """
    a = at_least_float32(cls_logits)
    b = quality_logits.to(a.dtype)
    # e^-a + e^-b (1 + e^-a), and 1 + e^-a = 1 / sigmoid(a)
    return -torch.logaddexp(-a, -(F.logsigmoid(a) + b))


def to_device(values: Sequence, like: Tensor) -> Tensor:
    """Numbers as a tensor of the dtype and on the device of another, without waiting for a GPU.

    (``new_tensor`` copies to a GPU synchronously.)
    """
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)
