"""Sums over the processes of a distributed training."""

import contextlib
from collections.abc import Iterator

from detectron2.utils import comm
from torch import Tensor
from torch import distributed as dist

__all__ = ["each_on_its_own", "sum_over_workers"]

_on_its_own = False


def sum_over_workers(values: Tensor) -> tuple[Tensor, int]:
    """Returns the sum of a tensor over all processes, and their number."""
    world_size = 1 if _on_its_own else comm.get_world_size()
    if world_size > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values, world_size


@contextlib.contextmanager
def each_on_its_own() -> Iterator[None]:
    """Inside it, a process sums over itself only, and waits for no other. So the losses of an image
    do not depend on the images of other processes, nor on their number."""
    global _on_its_own
    before, _on_its_own = _on_its_own, True
    try:
        yield
    finally:
        _on_its_own = before
