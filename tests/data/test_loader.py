"""The batches of training: as Detectron2's, and a function of their number."""

import itertools
import os
import random
import signal

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler

from gfocal.data import build_train_loader
from gfocal.process.rng import rng_state

SIZES = [(4, 3), (3, 4), (4, 3), (5, 3), (3, 3), (2, 9), (9, 2)]
DATASET = [
    {"file_name": f"{i}.png", "image_id": i, "width": w, "height": h}
    for i, (w, h) in enumerate(SIZES)
]


def with_random_numbers(x: dict) -> dict:
    """A mapper that draws from every generator, as augmentations do."""
    return {**x, "drawn": (random.random(), np.random.rand(), torch.rand(1).item())}


def loader(seed=0, batch=2, mapper=with_random_numbers, **kwargs):
    return build_train_loader(DATASET, mapper=mapper, total_batch_size=batch, seed=seed, **kwargs)


def take(batches, count: int) -> list[list[dict]]:
    return list(itertools.islice(iter(batches), count))


def ids(batches: list[list[dict]]) -> list[list[int]]:
    return [[x["image_id"] for x in batch] for batch in batches]


@pytest.mark.parametrize("grouping", [True, False])
def test_the_images_are_those_of_detectron2(grouping):
    theirs = build_detection_train_loader(
        DATASET,
        mapper=with_random_numbers,
        sampler=TrainingSampler(len(DATASET), seed=5),
        total_batch_size=2,
        aspect_ratio_grouping=grouping,
    )
    ours = take(loader(seed=5, aspect_ratio_grouping=grouping), 40)
    assert ids(ours) == ids(take(theirs, 40))
    assert len({x["image_id"] for batch in ours for x in batch}) == len(DATASET)
    if grouping:
        assert all(len({x["width"] > x["height"] for x in batch}) == 1 for batch in ours)


def test_the_batches_do_not_depend_on_workers_or_on_the_global_generators():
    first = take(loader(), 10)
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    assert take(loader(num_workers=1), 10) == take(loader(num_workers=2), 10) == first
    before = rng_state()
    take(loader(), 3)
    after = rng_state()
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]
    # Each image has random numbers of its own, also when it comes again.
    drawn = [x["drawn"] for batch in first for x in batch]
    assert len(set(drawn)) == len(drawn) == 20
    assert take(loader(seed=1), 10) != first


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("sampler", ["default", "repeat factor"])
def test_goes_on_where_another_was(num_workers, sampler):
    def build(seed):
        factors = torch.tensor([1.0, 2.5, 1, 1, 1.3, 1, 1])
        chosen = {"repeat factor": RepeatFactorTrainingSampler(factors, seed=seed)}.get(sampler)
        return loader(seed=seed, sampler=chosen, num_workers=num_workers)

    whole = take(build(3), 12)
    half = build(3)
    batches = iter(half)
    assert [next(batches) for _ in range(5)] == whole[:5]  # workers have prepared more
    state = half.state_dict()
    assert state["num_batches"] == 5
    rest = build(8)  # the seed comes from the state
    batches = iter(rest)  # Detectron2 0.5 asks for the iterator before the checkpoint is loaded
    rest.load_state_dict(state)
    assert [next(batches) for _ in range(7)] == whole[5:]
    assert rest.state_dict()["num_batches"] == 12


def test_the_processes_share_the_images_and_their_random_numbers(monkeypatch):
    whole = take(loader(batch=2, aspect_ratio_grouping=False), 10)
    shares = []
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        shares.append(take(loader(batch=2, aspect_ratio_grouping=False), 10))
    assert [first + second for first, second in zip(*shares)] == whole


def test_another_batch_size_goes_on_after_the_images_that_were_seen():
    seen = loader(aspect_ratio_grouping=False)
    images = list(itertools.chain.from_iterable(take(seen, 9)))
    assert seen.num_batches == 9
    for batch, skipped in ((3, 18), (4, 16)):  # 4 does not divide 18: the batch before
        other = loader(batch=batch, aspect_ratio_grouping=False)
        other.load_state_dict(seen.state_dict())
        stream = take(loader(batch=1, aspect_ratio_grouping=False), skipped + batch)
        assert take(other, 1) == [[image for (image,) in stream[skipped:]]]
    assert [image for (image,) in stream[:18]] == images


def test_where_the_mapper_has_no_answer_another_image_is_taken():
    def only_even(x):
        return None if x["image_id"] % 2 else x

    batches = ids(take(loader(mapper=only_even, num_workers=1), 10))
    assert {i for batch in batches for i in batch} == {0, 2, 4, 6}
    assert ids(take(loader(mapper=only_even), 10)) == batches
    with pytest.raises(ValueError, match="None for 100 training images in a row"):
        take(loader(mapper=lambda x: None), 1)


def test_an_error_or_the_death_of_a_worker_reaches_the_user():
    # How long PyTorch waits for a worker's end after an error, seconds.

    def broken(x):
        raise ValueError(f"cannot read {x['file_name']}")

    with pytest.raises(ValueError, match=r"cannot read \d.png"):
        take(loader(mapper=broken, num_workers=2), 1)

    def killed(x):  # as the kernel does when memory is short
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match="worker .*(killed by signal|exited unexpectedly)"):
        take(loader(mapper=killed, num_workers=1), 1)


def test_what_cannot_be_loaded_from_is_refused():
    for batch in (0, -2):
        with pytest.raises(ValueError, match=f"total_batch_size is {batch}; expected a positive"):
            loader(batch=batch)
    with pytest.raises(ValueError, match="no images"):
        build_train_loader([], mapper=dict, total_batch_size=1)
    with pytest.raises(ValueError, match=r'b.png has no "width" and "height"'):
        build_train_loader([{"file_name": "b.png"}], mapper=dict, total_batch_size=1)
    with pytest.raises(TypeError, match=r"list of dataset dicts, got TensorDataset.*GROUPING"):
        dataset = torch.utils.data.TensorDataset(torch.zeros(3))
        build_train_loader(dataset, mapper=dict, total_batch_size=1)
    finite = loader(sampler=range(5), aspect_ratio_grouping=False)
    with pytest.raises(ValueError, match="range, came to an end after 2 batches"):
        take(finite, 3)
