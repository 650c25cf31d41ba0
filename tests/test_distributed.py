"""Two workers with one image each give the gradients of one worker with both."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

from .tiny import make_gfl, make_input

BATCHES = {
    "both have boxes": [[[3.0, 2, 63, 58]], [[10.0, 5, 90, 60], [0.0, 0, 50, 62]]],
    "one has none": [[[3.0, 2, 63, 58]], []],
}


def _model_and_batch(boxes):
    torch.manual_seed(0)
    model = make_gfl().double()
    return model, [make_input(64, 96, x) for x in boxes]


def _worker(rank, boxes, file):
    dist.init_process_group("gloo", init_method=f"file://{file}.init", rank=rank, world_size=2)
    assert comm.get_world_size() == 2
    model, batch = _model_and_batch(boxes)
    model = torch.nn.parallel.DistributedDataParallel(model)
    sum(model(batch[rank : rank + 1]).values()).backward()
    if rank == 0:
        torch.save({k: p.grad for k, p in model.module.named_parameters()}, file)
    dist.destroy_process_group()


@pytest.mark.parametrize("boxes", BATCHES.values(), ids=BATCHES.keys())
def test_two_workers_equal_one(boxes, tmp_path):
    file = os.path.join(tmp_path, "gradients")
    mp.spawn(_worker, args=(boxes, file), nprocs=2)
    together = torch.load(file)

    model, batch = _model_and_batch(boxes)
    sum(model(batch).values()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-9, atol=1e-12)
