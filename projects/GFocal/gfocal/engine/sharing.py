"""What a PyTorch model brings to the prediction of many images: Detectron2's processes that share
them, PyTorch's processes that read them, and a config."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ..config import Config, set_weights
from ..weights.description import describe
from .prediction import Share, digest

__all__ = ["digest_of_config", "own_share", "read_in_processes"]


def own_share() -> Share:
    """Which of the processes of :func:`gfocal.engine.launch` this is."""
    return Share(comm.get_rank(), comm.get_world_size(), comm.synchronize)


def read_in_processes(
    read: Callable[[Sequence[int]], list[Any]], batches: Sequence[Sequence[int]], num_workers: int
) -> Iterator[list[Any]]:
    """``read(batch)`` of each batch, in order. Augmentations in Python run beside each other too.

    Args:
        read: it can be pickled.
        batches: what it is called with.
        num_workers: processes; 0: none but this.
    """
    yield from DataLoader(
        _Batches(read, batches),
        batch_size=None,
        num_workers=min(num_workers, len(batches)),
        collate_fn=_as_it_is,
    )


def digest_of_config(cfg: Config) -> str:
    """A short fingerprint of a config, but for the path of its weights. A config with objects in it
    counts as any other of this kind."""
    set_weights(cfg := copy.deepcopy(cfg), "")
    return digest(json.dumps(describe(cfg).config, sort_keys=True))


def _as_it_is(batch: Any) -> Any:
    return batch


class _Batches(Dataset):
    def __init__(
        self, read: Callable[[Sequence[int]], list[Any]], batches: Sequence[Sequence[int]]
    ):
        self._read, self._batches = read, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[Any]:
        return self._read(self._batches[index])
