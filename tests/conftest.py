"""What every test shares: few threads, random numbers that repeat, a clean dataset catalog."""

import random

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from gfocal.data.defects import warn_once

torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _not_deterministic_afterwards():
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(scope="module")
def one_thread():
    """Tensors this small are slower on several threads, and much slower beside other programs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _clean_catalog():
    before = set(DatasetCatalog.list())
    warn_once.cache_clear()
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
