"""What every test shares: few threads, random numbers that repeat, a clean dataset catalog."""

import logging
import os
import random

import numpy as np
import pytest
import torch
import torch.utils.data
from detectron2.data import DatasetCatalog, MetadataCatalog

from gfocal.data.defects import warn_once

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
# Seconds that PyTorch waits for each worker of a data loader to end. Those of a loader that the
# garbage collector finds do not end by themselves, and usually it waits 5 seconds for each.
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.1


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


@pytest.fixture
def loggers_restored():
    """Puts the loggers back that Detectron2's default_setup configures."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "gfocal")]
    before = [(x.propagate, x.level, list(x.handlers)) for x in loggers]
    yield
    for logger, (propagate, level, handlers) in zip(loggers, before):
        logger.propagate, logger.handlers = propagate, handlers
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def _clean_catalog():
    before = set(DatasetCatalog.list())
    warn_once.cache_clear()
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
