"""Optimizers that clip the gradient themselves, in every training loop, and the learning rates of a
ViT's layers."""

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["SGD", "Adam", "AdamW", "share_of", "vit_lr_decay"]


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


def share_of(iterations: int, *, share: float) -> int:
    """The iterations that a share of a training takes, for a config whose length is not known yet:
    ``L(share_of)(iterations="${train.max_iter}", share=1 / 3)``.

    Raises:
        ValueError: ``share`` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share!r}; expected a number in [0, 1]")
    return round(iterations * share)


def vit_lr_decay(*, rate: float, num_layers: int) -> Callable[[str], float]:
    """Smaller learning rates for the earlier blocks of a ViT, also of timm's, as ViTDet is trained
    (https://arxiv.org/abs/2203.16527). It is the ``lr_factor_func`` of Detectron2's
    ``get_default_optimizer_params``, on its main branch.

    The learning rate is multiplied by rate^(num_layers - i) for block i, by rate^(num_layers + 1)
    for the embeddings of patches and positions, and by 1 for all else.

    Args:
        rate: above 0, at most 1.
        num_layers: number of the ViT's blocks.

    Raises:
        ValueError: the rate is not; or, when it is called, the ViT has more blocks.
    """
    from detectron2.modeling import get_vit_lr_decay_rate

    if not 0 < rate <= 1:
        raise ValueError(f"rate is {rate!r}; expected above 0, at most 1")
    factor = functools.partial(get_vit_lr_decay_rate, lr_decay_rate=rate, num_layers=num_layers)
    return functools.partial(_factor_of_known_blocks, factor, num_layers)


def _factor_of_known_blocks(factor: Callable[[str], float], num_layers: int, name: str) -> float:
    block = re.search(r"^backbone\..*\bblocks\.(\d+)\.", name)
    if block and int(block[1]) >= num_layers:  # its learning rate would be too large
        raise ValueError(f"num_layers is {num_layers}; expected more, as the model has {name}")
    return factor(name)
