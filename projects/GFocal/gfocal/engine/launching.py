"""Starting one process or many, by Detectron2's launch or by torchrun."""

import argparse
import os
from collections.abc import Callable

import torch
from detectron2.engine import default_argument_parser
from detectron2.engine import launch as detectron2_launch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch import distributed as dist

from ..process.groups import leave_process_group

__all__ = ["launch"]


def launch(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Runs ``main(args)`` in one process or in many.

    Under torchrun this is already one of its processes. They join by NCCL on GPUs, and by gloo on
    CPUs (``--num-gpus 0``, or a machine without a GPU). Otherwise Detectron2's ``launch`` starts
    ``--num-gpus`` processes.

    Args:
        main: the function.
        args: with ``num_gpus``, ``num_machines``, ``machine_rank`` and ``dist_url``; Detectron2's
            default takes the place of a ``dist_url`` None.
    """
    if not dist.is_torchelastic_launched():
        detectron2_launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url or default_argument_parser().get_default("dist_url"),
            args=(args,),
        )
        return
    on_gpu = torch.cuda.is_available() and args.num_gpus > 0
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=DEFAULT_TIMEOUT)
    try:
        _create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
        comm.synchronize()
        main(args)
    finally:
        leave_process_group()


def _create_local_process_group(size: int) -> None:
    """Makes the group of each machine's processes. Detectron2's get_local_rank needs it."""
    if hasattr(comm, "create_local_process_group"):  # not in Detectron2 0.5
        comm.create_local_process_group(size)
        return
    for first in range(0, dist.get_world_size(), size):
        ranks = list(range(first, first + size))
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group
