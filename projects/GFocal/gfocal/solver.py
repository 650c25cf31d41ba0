"""Optimizers that clip the gradient themselves, in every training loop."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["SGD", "Adam", "AdamW"]


class _Clipping(torch.optim.Optimizer):
    """An optimizer that can clip the gradient before its step.

    Clipping inside ``step`` works with every training loop, also Detectron2's own. Under AMP it
    sees the gradients after they were unscaled.

    Args:
        params: see the optimizer of torch.optim.
        max_grad_norm: largest norm of the gradient over all parameters together. A longer gradient
            is scaled down to it. None: no clipping.
        kwargs: see the optimizer of torch.optim.

    Raises:
        ValueError: if ``max_grad_norm`` is not a number above 0, or comes with ``fused=True``: a
            fused step would unscale the gradients after they were clipped.
    """

    def __init__(self, params: Iterable[Any], *, max_grad_norm: float | None = None, **kwargs: Any):
        super().__init__(params, **kwargs)
        if max_grad_norm is not None:
            if not (isinstance(max_grad_norm, (int, float)) and max_grad_norm > 0):
                raise ValueError(f"max_grad_norm is {max_grad_norm!r}; expected None or above 0")
            if kwargs.get("fused"):
                raise ValueError("max_grad_norm cannot clip the gradients of fused=True under AMP")
            self.max_grad_norm = max_grad_norm
            self.register_step_pre_hook(_clip)


class SGD(_Clipping, torch.optim.SGD):
    __doc__ = f"torch.optim.SGD. {_Clipping.__doc__}"


class Adam(_Clipping, torch.optim.Adam):
    __doc__ = f"torch.optim.Adam. {_Clipping.__doc__}"


class AdamW(_Clipping, torch.optim.AdamW):
    __doc__ = f"torch.optim.AdamW. {_Clipping.__doc__}"


def _clip(optimizer: _Clipping, args: tuple, kwargs: dict) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, optimizer.max_grad_norm)
