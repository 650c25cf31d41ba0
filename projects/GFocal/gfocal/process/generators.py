"""Random generators that a part keeps for itself, such as those of a library of augmentations."""

import random
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

__all__ = ["own_generators", "reachable", "seed_generators"]

_LEAVES = (str, bytes, int, float, complex, type, types.ModuleType, np.ndarray, torch.Tensor)
_MANY = 1000  # elements of a container that is data, not a list of parts
_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)


def reachable(part: Any) -> Iterator[Any]:
    """The objects that a part is made of, itself first: by attributes, containers of at most
    1000 elements, closures and partial functions. An object comes once."""
    seen: dict[int, Any] = {}
    waiting = [part]
    while waiting:
        item = waiting.pop()
        if item is None or isinstance(item, _LEAVES) or id(item) in seen:
            continue
        seen[id(item)] = item  # kept, so that no other object gets its id
        yield item
        if not isinstance(item, _GENERATORS):
            waiting += _inside(item)


def own_generators(part: Any) -> list[Any]:
    """The generators that a part keeps, of Python, NumPy and PyTorch, without the global ones."""
    shared = (np.random.mtrand._rand, torch.default_generator)  # type: ignore[attr-defined]  # stub
    return [
        x
        for x in reachable(part)
        if isinstance(x, _GENERATORS) and not any(x is other for other in shared)
    ]


def seed_generators(generators: Sequence[Any], *entropy: int) -> None:
    """Seeds generators, each in another way, by ``entropy`` only.

    Args:
        generators: of :func:`own_generators`.
        entropy: integers from 0 on, e.g. a seed and a number.
    """
    for index, generator in enumerate(generators):
        sequence = np.random.SeedSequence(entropy, spawn_key=(index,))
        seed = int(sequence.generate_state(1)[0])
        if isinstance(generator, np.random.Generator):
            kind: Any = type(generator.bit_generator)
            generator.bit_generator.state = kind(sequence).state
        elif isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        else:
            generator.seed(seed)


def _inside(item: Any) -> list[Any]:
    """The objects that one object refers to, in an order that repeats."""
    if isinstance(item, types.MethodType):
        return [item.__self__, item.__func__]
    if isinstance(item, types.FunctionType):
        return [cell.cell_contents for cell in item.__closure__ or () if _is_filled(cell)]
    if isinstance(item, partial):
        return [item.func, item.args, item.keywords]
    found: list[Any] = []
    if isinstance(item, Mapping):
        found += item.values() if len(item) <= _MANY else []
    elif isinstance(item, (list, tuple)):
        found += item if len(item) <= _MANY else []
    found += getattr(item, "__dict__", {}).values()
    return found


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # of a name that has no value yet
        return False
