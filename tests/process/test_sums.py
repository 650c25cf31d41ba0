"""Sums over processes. Those over two of them are in test_distributed.py."""

import pytest
import torch
from detectron2.utils import comm
from torch import distributed as dist

from gfocal.process import each_on_its_own, sum_over_workers


def test_a_process_by_itself_sums_over_itself():
    values = torch.tensor([1.0, 2.0])
    total, world_size = sum_over_workers(values)
    assert total.tolist() == [1, 2] and world_size == 1


def test_inside_each_on_its_own_no_process_waits_for_another(monkeypatch):
    """Also after an error inside."""
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.mul_(3))  # three that are alike
    values = torch.tensor([1.0, 2.0])
    with pytest.raises(KeyError), each_on_its_own():
        assert sum_over_workers(values)[0].tolist() == [1, 2]
        assert sum_over_workers(values)[1] == 1
        raise KeyError
    total, world_size = sum_over_workers(values)
    assert total.tolist() == [3, 6] and world_size == 3
    assert values.tolist() == [1, 2]  # the caller's are left alone


def test_each_on_its_own_inside_of_another(monkeypatch):
    """A model that is built inside of a validation leaves the validation as it was."""
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with each_on_its_own():
        with each_on_its_own():
            pass
        total, world_size = sum_over_workers(torch.tensor([1.0]))
        assert total.tolist() == [1] and world_size == 1
