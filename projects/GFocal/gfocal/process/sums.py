"""Sums over the processes of a distributed training, and over the micro-batches of a step."""

import contextlib
from collections.abc import Iterator

import torch
from detectron2.utils import comm
from torch import Tensor
from torch import distributed as dist

__all__ = [
    "MicroBatchSums",
    "each_micro_batch_on_its_own",
    "each_on_its_own",
    "is_counting",
    "is_first_micro_batch",
    "sum_over_micro_batches",
    "sum_over_workers",
]

_on_its_own = False
_step: "MicroBatchSums | None" = None


def sum_over_workers(values: Tensor) -> tuple[Tensor, int]:
    """Returns the sum of a tensor over all processes, and their number.

    If the step has several micro-batches, they count like processes, see :class:`MicroBatchSums`:
    n micro-batches in each of w processes are n * w.
    """
    if _step is not None and not _on_its_own:
        return _step.sum(values, over_workers=True)
    return _sum_over_workers(values)


def sum_over_micro_batches(values: Tensor) -> tuple[Tensor, int]:
    """Returns the sum of a tensor over the micro-batches of the step in this process, and their
    number, which is usually 1."""
    if _step is not None and not _on_its_own:
        return _step.sum(values, over_workers=False)
    return values, 1


def is_first_micro_batch() -> bool:
    """Whether a value that changes once a step, such as a running mean, changes now."""
    return _step is None or _step.index == 0


def is_counting() -> bool:
    """Whether this pass only counts, see :class:`MicroBatchSums`. No observer looks at it."""
    return _step is not None and _step.counting


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


@contextlib.contextmanager
def each_micro_batch_on_its_own() -> Iterator[None]:
    """Inside it, sums are over all processes, but over no other micro-batch."""
    global _step
    before, _step = _step, None
    try:
        yield
    finally:
        _step = before


class MicroBatchSums:
    """Sums over all micro-batches of a step, known to each of them.

    The micro-batches are computed twice. In the first pass (:meth:`counted`) each sum is of the
    micro-batch alone, and is noted. In the second pass (:meth:`micro_batch`) the sums are those of
    all of them. The n-th sum of a micro-batch belongs to the n-th of each other.

    Attributes:
        count: number of micro-batches.
        index: of the current one.
        counting: whether this is the first pass.
    """

    def __init__(self, count: int):
        self.count = count
        self.index = 0
        self.counting = False
        self._noted: list[list[tuple[Tensor, bool]]] = []
        self._totals: list[tuple[Tensor, bool]] | None = None
        self._place = 0

    @contextlib.contextmanager
    def counted(self, index: int) -> Iterator[None]:
        """Inside it, the sums of a micro-batch are noted."""
        self._noted.append([])
        self.counting = True
        try:
            with self.micro_batch(index):
                yield
        finally:
            self.counting = False

    @contextlib.contextmanager
    def micro_batch(self, index: int) -> Iterator[None]:
        """Inside it, sums are those of all micro-batches, after :meth:`add_up`."""
        global _step
        self.index, self._place = index, 0
        before, _step = _step, self
        try:
            yield
        finally:
            _step = before

    def add_up(self) -> bool:
        """Adds up what the first pass noted; returns whether it noted anything.

        Raises:
            ValueError: the micro-batches do not ask for the same sums.
        """
        kinds = [[(x.shape, over_workers) for x, over_workers in noted] for noted in self._noted]
        if any(x != kinds[0] for x in kinds):
            raise ValueError(
                f"the micro-batches of a step sum {kinds}; expected the same sums in each, also in "
                "one without ground truth"
            )
        self._totals = []
        for parts in zip(*self._noted, strict=True):
            over_workers = parts[0][1]
            total = torch.stack([x for x, _ in parts]).sum(dim=0)
            total = _sum_over_workers(total)[0] if over_workers else total
            self._totals.append((total, over_workers))
        return bool(self._totals)

    def sum(self, values: Tensor, *, over_workers: bool) -> tuple[Tensor, int]:
        """A sum of the current micro-batch: noted and answered alone, or that of all.

        Raises:
            ValueError: the first pass had no such sum.
        """
        if self.counting:
            self._noted[-1].append((values.detach().clone(), over_workers))
            return values, 1
        if not self._totals:
            return _sum_over_workers(values) if over_workers else (values, 1)
        place, self._place = self._place, self._place + 1
        kinds = [(x.shape, over_workers) for x, over_workers in self._totals]
        if kinds[place : place + 1] != [(values.shape, over_workers)]:
            raise ValueError(
                f"sum {place} of a micro-batch is of shape {tuple(values.shape)}; the first pass "
                f"had {kinds}"
            )
        parts = self.count * (comm.get_world_size() if over_workers else 1)
        return self._totals[place][0].clone(), parts


def _sum_over_workers(values: Tensor) -> tuple[Tensor, int]:
    world_size = 1 if _on_its_own else comm.get_world_size()
    if world_size > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values, world_size
