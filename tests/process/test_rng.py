"""Random states of a process."""

import random

import numpy as np
import pytest
import torch

from gfocal.process import preserved_rng, rng_state, set_rng_state, temporarily_seeded


def test_random_states_are_saved_restored_and_preserved():
    def draw():
        return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()

    np.random.randn()  # NumPy keeps the second of a pair of normal numbers
    state = rng_state()
    first = draw()
    assert draw() != first
    set_rng_state(state)
    assert draw() == first
    set_rng_state(state)
    with pytest.raises(KeyError), preserved_rng():
        draw()
        raise KeyError
    with temporarily_seeded(1, 2):
        seeded = draw()
    assert draw() == first
    with temporarily_seeded(1, 2):
        assert draw() == seeded
    with temporarily_seeded(1, 3):
        assert draw() != seeded
