"""The random states of Python, NumPy and PyTorch: saved, restored, left alone."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch

__all__ = ["preserved_rng", "rng_state", "set_rng_state", "temporarily_seeded"]


def rng_state() -> dict[str, Any]:
    """Returns the states of this process's generators: tensors, numbers and strings only. So a
    checkpoint with them is read without running code."""
    # A tuple; only legacy=False gives a dict.
    kind, keys, *rest = cast("tuple[Any, ...]", np.random.get_state())
    state = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restores what :func:`rng_state` returned."""
    kind, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def preserved_rng() -> Iterator[None]:
    """Code inside it leaves no trace in the generators."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


@contextlib.contextmanager
def temporarily_seeded(*entropy: int) -> Iterator[None]:
    """Code inside it draws random numbers that depend on ``entropy`` only, on the CPU.

    Args:
        entropy: integers from 0 on, e.g. a seed and a number.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seeds = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])  # torch.manual_seed would also seed the GPUs
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
