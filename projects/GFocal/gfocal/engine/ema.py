"""Averaged weights: a hook that a config can add to a training."""

from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import AveragedModel

__all__ = ["EMAHook"]


class EMAHook(HookBase):
    """An exponential moving average of the weights and of the statistics of batch norm.

    It starts with the weights after its first step. After n steps it keeps
    ``min(decay, (1 + n) / (10 + n))`` of itself at each step, so that it soon forgets its start.

    Args:
        model: the model in training, without DistributedDataParallel.
        decay: in (0, 1).

    Attributes:
        model: a copy with the averaged weights.

    Raises:
        ValueError: ``decay`` is not in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay is {decay}; expected a number between 0 and 1, or 0")
        self._source, self._is_shared = model, False

        def average(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
            if not old.is_floating_point():
                return new
            weight = 1 - torch.as_tensor((1 + count) / (10 + count)).clamp(max=decay)
            return old.lerp(new, weight.to(old.dtype))

        self._average = AveragedModel(model, avg_fn=average, use_buffers=True)

    @property
    def model(self) -> nn.Module:
        return self._average.module

    @property
    def steps(self) -> int:
        """After how many steps the average is."""
        return int(self._average.n_averaged)

    def same_everywhere(self) -> None:
        """Lets all processes have the main process's statistics of batch norm in the average. A
        training that computes with it asks for this: a checkpoint has those alone."""
        self._is_shared = True

    def before_train(self) -> None:
        # The model's weights were loaded after __init__. A checkpoint without an average leaves the
        # old ones here.
        if self._average.n_averaged == 0:
            self.model.load_state_dict(self._source.state_dict())

    def after_step(self) -> None:
        self._average.update_parameters(self._source)
        if self._is_shared and comm.get_world_size() > 1:
            norms = [x for x in self.model.modules() if isinstance(x, _NormBase)]
            for buffer in (x for norm in norms for x in norm.buffers()):
                torch.distributed.broadcast(buffer, 0)

    def state_dict(self) -> dict[str, Any]:
        return self._average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._average.load_state_dict(state_dict)
