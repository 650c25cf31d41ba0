"""2,000 training iterations on random batches: every loss is finite, and nothing piles up."""

import gc
import os

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from detectron2.utils.events import EventStorage

from tests.helpers.tiny import make_gfl, make_input

ITERATIONS, WARM_UP = 2000, 500
NUM_CLASSES = 80
# One tensor of class logits an iteration (90 locations and 1.5 images on average, 80 classes) would
# come to 60 MB. What grows by design are the event storage and a cache of the convolutions: 11 MB.
MAX_GROWTH = 24 * 2**20


def resident_memory() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def num_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())


def random_batch(rng):
    """One or two images, 1 to 120 px a side, and 0 to 20 boxes of 0.5 px to twice that."""
    batch = []
    for _ in range(rng.integers(1, 3)):
        height, width = rng.integers(1, 121, 2).tolist()
        count = rng.choice([0, 1, 2, 5, 20])
        sides = np.exp(rng.uniform(np.log(0.5), np.log(2 * max(height, width)), (count, 2)))
        centers = rng.uniform(0, 1, (count, 2)) * [width, height]
        boxes = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)
        classes = rng.integers(0, NUM_CLASSES, count)
        batch.append(make_input(height, width, boxes.tolist(), classes.tolist()))
    return batch


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="resident memory is Linux's")
def test_soak():
    mp.spawn(soak, nprocs=1)  # a new process: after other tests the memory of this one is in pieces


def soak(index):
    torch.set_num_threads(1)
    torch.manual_seed(index)
    rng = np.random.default_rng(index)
    model = make_gfl(num_classes=NUM_CLASSES, statistics_period=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    positives = detected = 0
    with EventStorage(0) as storage:
        for iteration in range(ITERATIONS):
            if iteration == WARM_UP:
                memory, tensors = resident_memory(), num_tensors()
            losses = model(random_batch(rng))
            total = sum(losses.values())
            assert total.isfinite(), (iteration, losses)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            positives += losses["loss_box_reg"].item() > 0
            storage.put_scalars(**{name: loss.item() for name, loss in losses.items()})
            storage.step()
            if iteration % 100 == 99:
                model.eval()
                model.test_score_thresh = 0.001
                with torch.no_grad():
                    detected += sum(len(x["instances"]) for x in model(random_batch(rng)))
                model.train()
        growth = resident_memory() - memory
        assert num_tensors() == tensors
    assert growth < MAX_GROWTH, f"{growth / 2**20:.1f} MB"
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert positives > ITERATIONS / 4 and detected > 0  # it did train and detect
