"""Trainings that repeat."""

import os

import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

__all__ = ["set_seed"]


def set_seed(seed: int, deterministic: bool) -> None:
    """Seeds all generators, and asks PyTorch for algorithms that repeat.

    Args:
        seed: from 0 on; below 0 the generators are left alone.
        deterministic: the same inputs then give the same bits on the same machine (on a CPU with
            the same number of threads). PyTorch warns of operators without such an algorithm.
    """
    if seed >= 0:
        seed_all_rng(seed + comm.get_rank())
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
