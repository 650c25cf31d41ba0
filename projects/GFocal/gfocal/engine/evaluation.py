"""Evaluations: of the weights that a config names, and of a model in training."""

import contextlib
from collections.abc import Iterator

import torch
from detectron2.utils import comm
from torch import nn

from ..rng import preserved_rng

__all__ = ["evaluation_leaves_no_trace"]


@contextlib.contextmanager
def evaluation_leaves_no_trace(model: nn.Module) -> Iterator[None]:
    """What runs inside changes neither the random states nor a module's mode. Inside, all processes
    have the buffers of the main one, which are those that it saves: without synchronisation each
    has its own statistics of batch norm."""
    modes = [(module, module.training) for module in model.modules()]
    own = []
    if comm.get_world_size() > 1:
        own = [(buffer, buffer.clone()) for buffer in model.buffers()]
        for buffer, _ in own:
            torch.distributed.broadcast(buffer, 0)
    with preserved_rng():
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for buffer, value in own:
                buffer.copy_(value)
