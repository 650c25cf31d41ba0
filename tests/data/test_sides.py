"""Distributions as bytes and back."""

import numpy as np
import pytest

from gfocal.data.sides import pack_sides, relative_bins, unpack_sides


@pytest.mark.parametrize("bins", [np.arange(17.0), np.array([0, 0.5, 1, 2, 4, 8.0])])
def test_there_and_back(bins):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(len(bins)), 4)
    outward = np.array([-1.0, -1, 1, 1])[:, None]
    edges = np.array([50.0, 40, 50, 40])[:, None] + outward * 8 * bins
    relative = relative_bins(edges[None])
    assert relative[0] == 0 and relative[-1] == 1
    other = probabilities[::-1], edges + 100
    packed = pack_sides(*map(np.stack, zip((probabilities, edges), other)))
    assert packed[1] == pack_sides(other[0][None], other[1][None])[0] != packed[0]
    found = unpack_sides(packed[0], relative)
    largest = probabilities.max(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, probabilities / largest, atol=0.5 / 255)
    np.testing.assert_allclose(found.bin_edges, edges, atol=0.02)


def test_bytes_by_hand():
    """Two bins: 0.75 is the largest, 0.25 a third of it, 85 of 255."""
    probabilities = np.tile([0.25, 0.75], (4, 1))
    edges = np.array([[9.0, 1], [8, 0], [9, 17], [8, 16.006]])
    (packed,) = pack_sides(probabilities[None], edges[None])
    assert packed == {"p": "Vf9V/1X/Vf8=", "ends": [[9, 1], [8, 0], [9, 17], [8, 16.01]]}
    with pytest.raises(ValueError, match="sides of 8 bytes; expected 4 times 3 bins"):
        unpack_sides(packed, [0, 0.5, 1])
