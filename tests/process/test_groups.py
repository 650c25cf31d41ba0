"""The end of a process."""

import torch.distributed as dist
from detectron2.utils import comm

from gfocal.process.groups import leave_process_group


def test_nothing_keeps_the_group(tmp_path):
    """A group in Detectron2's cache would be ended by the end of the interpreter."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/init", rank=0, world_size=1)
    comm._get_global_gloo_group()
    leave_process_group()
    assert comm._get_global_gloo_group.cache_info().currsize == 0
    assert not dist.is_initialized()
