"""Training batches that a resume can continue: each is a function of a seed and of its number.

Detectron2's loader keeps its state in places that nobody can read: the order of images in a
generator, half-filled batches of upright and of wide images, and the random numbers of
augmentations in each loader process. Here the images of a batch are chosen before they are read,
and an image's random numbers are seeded by its place in the stream. So the batches do not depend on
the number of loader processes. To continue after batch n, n batches of indices are skipped.
"""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ..process.generators import own_generators, seed_generators
from ..process.rng import temporarily_seeded
from .mixing import Mapped, Step

__all__ = ["TrainLoader", "build_train_loader"]

_MAX_TRIES = 100
_NO_ANSWER = f"the mapper answered None for {_MAX_TRIES} training images in a row"


class Images(Protocol):
    """A list of dataset dicts, or a map-style dataset of them."""

    def __len__(self) -> int:
        """Returns the number of images."""

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """Returns the dict of an image."""


class TrainLoader:
    """Endless batches of mapped dataset dicts, see :func:`build_train_loader`.

    Attributes:
        num_batches: number of batches so far.
    """

    def __init__(
        self,
        dataset: Images,
        *,
        mapper: Callable[[dict[str, Any]], Any],
        sampler: Sampler,
        batch_size: int,
        aspect_ratio_grouping: bool,
        num_workers: int,
        seed: int,
        mixing: Sequence[Step] = (),
    ):
        self.is_wide = _is_wide(dataset) if aspect_ratio_grouping else np.zeros(len(dataset), bool)
        if isinstance(dataset, list):
            dataset = DatasetFromList(dataset, copy=False)  # one copy for all loader processes
        self.dataset = dataset
        self.mapper = mapper
        self.sampler = sampler
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.mixing = tuple(mixing)
        self.num_batches = 0

    def __iter__(self) -> Iterator[list[Any]]:
        # A generator: it starts at the first batch, when the place in the stream is known.
        # The processes load single images: a queue of whole batches would fill the shared memory.
        loader = DataLoader(
            self.mapped(),
            sampler=itertools.chain.from_iterable(self._indices(skip=self.num_batches)),
            batch_size=None,
            num_workers=self.num_workers,
            collate_fn=unchanged,
            generator=torch.Generator().manual_seed(0),  # else it draws from the global one
        )
        images = iter(loader)
        while batch := list(itertools.islice(images, self.batch_size)):
            self.num_batches += 1
            yield batch
        raise ValueError(
            f"the sampler of the training images, {type(self.sampler).__name__}, came to an end "
            f"after {self.num_batches} batches; training needs one that goes on for ever"
        )

    def mapped(self) -> "_Mapped":
        """The mapped images by (place in the stream, index)."""
        return _Mapped(self.dataset, self.mapper, self.seed, self.mixing)

    def _indices(self, skip: int) -> Iterator[list[tuple[int, int]]]:
        """Batches of (place in the stream, index), without the first ``skip``. The stream is that
        of all training processes together."""
        rank, world_size = comm.get_rank(), comm.get_world_size()
        groups: tuple[list, list] = ([], [])
        for count, index in enumerate(self.sampler):
            group = groups[int(self.is_wide[index])]
            group.append((count * world_size + rank, index))
            if len(group) == self.batch_size:
                if skip:
                    skip -= 1
                else:
                    yield group.copy()
                group.clear()

    def state_dict(self) -> dict[str, Any]:
        """Returns the place in the stream. It is the same for all training processes."""
        return {
            "num_batches": self.num_batches,
            "total_batch_size": self.batch_size * comm.get_world_size(),
            "seed": self.seed,
            "sampler_seed": getattr(self.sampler, "_seed", None),  # of Detectron2's samplers
            "num_images": len(self.dataset),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from the place of another loader. Batches already begun do not change."""
        if state_dict["num_images"] != len(self.dataset):
            logging.getLogger(__name__).warning(
                f"The checkpoint's training set had {state_dict['num_images']} images, this one "
                f"has {len(self.dataset)}: the order of images is another one from here on"
            )
        seen = state_dict["num_batches"] * state_dict["total_batch_size"]
        self.num_batches = seen // (self.batch_size * comm.get_world_size())
        self.seed = state_dict["seed"]
        if state_dict["sampler_seed"] is not None and hasattr(self.sampler, "_seed"):
            self.sampler._seed = state_dict["sampler_seed"]


def build_train_loader(
    dataset: Images,
    *,
    mapper: Callable[[dict[str, Any]], Any],
    mixing: Sequence[Step] = (),
    sampler: Sampler | Callable[[Images, int], Sampler] | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    seed: int | None = None,
) -> TrainLoader:
    """Detectron2's ``build_detection_train_loader``, for a training that resumes exactly.

    Args:
        dataset: dataset dicts, or a map-style dataset of them.
        mapper: turns a dataset dict into the model's input. If it answers None, another image is
            taken.
        mixing: steps that put further random images of the dataset into a mapped one, each called
            as ``step(mapped, another)``: :class:`gfocal.data.CopyPaste`,
            :class:`gfocal.data.Mosaic`. ``another()`` maps one by the mapper alone.
        sampler: endless indices, or what makes them of (dataset, seed), as
            :class:`gfocal.data.RepeatFactors`; by default a TrainingSampler. A resume continues
            from the place in it. Its state is resumed only if that is a ``_seed``, as in
            Detectron2's TrainingSampler and RepeatFactorTrainingSampler.
        total_batch_size: images a step, over all processes.
        aspect_ratio_grouping: put upright and wide images into separate batches; needs a list of
            dicts with "width" and "height".
        num_workers: processes that load images; their number does not change the batches.
        seed: of the order of images and of the augmentations. By default it is drawn, one for all
            training processes.

    Raises:
        ValueError: no images, a batch size that is not a multiple of the number of processes, or
            no sizes for the grouping.
        TypeError: the dataset is not a list, but images are to be grouped; or a step cannot be
            called.
    """
    world_size = comm.get_world_size()
    if total_batch_size <= 0 or total_batch_size % world_size:
        raise ValueError(
            f"total_batch_size is {total_batch_size}; expected a positive multiple of the number "
            f"of processes, {world_size}"
        )
    if len(dataset) == 0:
        raise ValueError("the training set has no images")
    if seed is None:
        seed = comm.shared_random_seed()
    uncallable = next((x for x in mixing if not callable(x)), None)
    if uncallable is not None:
        raise TypeError(f"mixing has {uncallable!r}; expected steps such as gfocal.data.CopyPaste")
    order: Any = TrainingSampler(len(dataset), seed=seed) if sampler is None else sampler
    return TrainLoader(
        dataset,
        mapper=mapper,
        mixing=mixing,
        sampler=order(dataset, seed) if callable(order) else order,
        batch_size=total_batch_size // world_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        seed=seed,
    )


class _Mapped(Dataset):
    """Maps the image of a (place in the stream, index). Its random numbers depend on the place,
    also those of generators that the mapper keeps for itself."""

    def __init__(self, dataset: Images, mapper: Callable, seed: int, mixing: Sequence[Step] = ()):
        self.dataset = dataset
        self.mapper = mapper
        self.seed = seed
        self.mixing = mixing
        self._found: list[Any] = []
        self._looks = 3  # a mapper may make its generator when it maps its first image

    def _generators(self) -> list[Any]:
        if self._looks:
            self._looks -= 1
            self._found = own_generators((self.mapper, self.mixing))
        return self._found

    def __getitem__(self, item: tuple[int, int]) -> Any:
        place, index = item
        for attempt in range(_MAX_TRIES):
            with temporarily_seeded(self.seed, place, attempt):
                seed_generators(self._generators(), self.seed, place, attempt)
                if attempt:
                    index = np.random.randint(len(self.dataset))
                mapped = self.mapper(self.dataset[index])
                if mapped is None:
                    continue
                for step in self.mixing:
                    mapped = step(mapped, self._another)
                return mapped
        raise ValueError(_NO_ANSWER)

    def _another(self) -> Mapped:
        for _ in range(_MAX_TRIES):
            mapped = self.mapper(self.dataset[np.random.randint(len(self.dataset))])
            if mapped is not None:
                return mapped
        raise ValueError(_NO_ANSWER)


def unchanged(item: Any) -> Any:
    """A collate_fn that leaves an item as it is."""
    return item


def _is_wide(dataset: Any) -> np.ndarray:
    if not isinstance(dataset, list):
        raise TypeError(
            f"aspect_ratio_grouping needs a list of dataset dicts, got {type(dataset).__name__}; "
            "set dataloader.train.aspect_ratio_grouping=False (DATALOADER.ASPECT_RATIO_GROUPING)"
        )
    missing = next((x for x in dataset if "width" not in x or "height" not in x), None)
    if missing is not None:
        raise ValueError(
            f'{missing.get("file_name", "a dataset dict")} has no "width" and "height", which '
            "aspect_ratio_grouping needs"
        )
    return np.array([x["width"] > x["height"] for x in dataset])
