"""The end of a process of a distributed training."""

from detectron2.utils import comm
from torch import distributed as dist

__all__ = ["leave_process_group"]


def leave_process_group() -> None:
    """Destroys the process group. Call it last, in every process.

    Detectron2 keeps the group of its ``gather`` in a cache. With it the group would live until the
    interpreter ends, and its threads with it; then a process that did all its work is aborted now
    and then ("terminate called without an active exception").
    """
    comm._get_global_gloo_group.cache_clear()
    dist.destroy_process_group()
