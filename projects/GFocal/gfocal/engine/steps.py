"""The step of a training, in full or in mixed precision."""

import time

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from torch import nn

__all__ = ["AutocastTrainer", "is_cpu", "step_class"]


class AutocastTrainer(SimpleTrainer):
    """The step of automatic mixed precision on a CPU: the forward pass in bfloat16 autocast.

    bfloat16 has the exponent range of float32, so no gradient is scaled. On CUDA use Detectron2's
    AMPTrainer.
    """

    def run_step(self) -> None:
        assert self.model.training, "model was changed to eval mode during training"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss_dict = self.model(data)
            if isinstance(loss_dict, torch.Tensor):
                loss_dict = {"total_loss": loss_dict}
            losses = sum(loss_dict.values())
        self.optimizer.zero_grad()
        losses.backward()
        self._write_metrics(loss_dict, data_time)
        self.optimizer.step()


def step_class(model: nn.Module, *, amp: bool) -> type[SimpleTrainer]:
    """Returns the class whose ``run_step`` trains a model.

    Args:
        model: on its device.
        amp: automatic mixed precision.
    """
    if not amp:
        return SimpleTrainer
    return AutocastTrainer if is_cpu(model) else AMPTrainer


def is_cpu(model: nn.Module) -> bool:
    """Whether a model's parameters are on the CPU."""
    return next(model.parameters()).device.type == "cpu"
