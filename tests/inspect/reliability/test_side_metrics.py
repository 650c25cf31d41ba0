"""Metrics of sides: by hand, of errors of a known distribution, and by numerical integration."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gfocal.inspect.reliability import side_metrics

LEVELS = (0.5, 0.8, 0.9)


@pytest.mark.parametrize("level", LEVELS)
def test_coverage_of_laplace_errors_is_the_level(level):
    """central_half_width is of a Laplace distribution, of scale std / sqrt(2)."""
    rng = np.random.default_rng(0)
    stds = rng.uniform(0.5, 8, 100_000)
    errors = rng.laplace(scale=stds / math.sqrt(2))
    assert side_metrics.coverage(errors, stds, level) == pytest.approx(level, abs=5e-3)
    assert side_metrics.coverage(errors, stds / 2, level) < level - 0.15
    # The half widths are 0.49, 1.14 and 1.63 std, and a Gaussian has this much inside.
    inside = {0.5: 0.376, 0.8: 0.745, 0.9: 0.896}[level]
    gaussian = side_metrics.coverage(rng.normal(scale=stds), stds, level)
    assert gaussian == pytest.approx(inside, abs=5e-3)


def test_coverage_by_hand():
    """Half widths of 80 %: 1.138 std."""
    errors = np.array([1.1, -1.1, 1.2, -1.2])
    assert side_metrics.coverage(errors, np.ones(4), 0.8) == 0.5
    assert math.isnan(side_metrics.coverage(errors[:0], errors[:0], 0.8))


# Bins at 0, 10, 20 px with the probabilities .5, .25, .25. The triangles have the bases 10, 20, 10
# and thus the heights .1, .025, .05 at the bins.
PROBS = np.array([0.5, 0.25, 0.25])
BINS = np.array([0.0, 10.0, 20.0])


@pytest.mark.parametrize(
    ("truth", "density", "place"),
    [
        (0.0, 0.1, 0.0),
        # Half way down from .1 to .025; 5 px of mean height (.1 + .0625) / 2.
        (5.0, 0.0625, 0.40625),
        # 10 px of mean height .0625; then 5 px of mean height (.025 + .0375) / 2.
        (10.0, 0.025, 0.625),
        (15.0, 0.0375, 0.78125),
        (20.0, 0.05, 1.0),
        (-3.0, 0.0, 0.0),
        (21.0, 0.0, 1.0),
    ],
)
@pytest.mark.parametrize("outward", [1, -1])  # the bins of left and top decrease
def test_a_distribution_between_its_bins(truth, density, place, outward):
    places = outward * (BINS - truth)[None]
    assert side_metrics.binned_place(PROBS[None], places) == pytest.approx(place)
    assert side_metrics.binned_density(PROBS[None], places) == pytest.approx(density)
    assert side_metrics.outside_bins(places) == float(not 0 <= truth <= 20)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 17))
def test_the_place_is_the_integral_of_the_density(seed, count):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(count, 0.5))
    bins = np.cumsum(rng.uniform(0.5, 3, count))
    truths = np.sort(np.append(np.linspace(bins[0], bins[-1], 4001), bins))
    places = bins - truths[:, None]
    rows = np.broadcast_to(probs, places.shape)
    density = side_metrics.binned_density(rows, places)
    integral = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(truths)))
    assert integral[-1] == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(side_metrics.binned_place(rows, places), integral, atol=1e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_coverage_of_sides_that_come_from_their_distributions(level):
    """A bin drawn with its probability, and a place in its triangle: the sum of two uniforms. No
    probability at the first and last bin, whose triangles are halves."""
    rng = np.random.default_rng(1)
    probs = np.array([0.0, 0.1, 0.4, 0.1, 0.3, 0.1, 0.0])
    bins = np.arange(7) * 4.0
    drawn = bins[rng.choice(7, 50_000, p=probs)]
    drawn += 4 * (rng.random(50_000) + rng.random(50_000) - 1)
    places = bins - drawn[:, None]
    rows = np.broadcast_to(probs, places.shape)
    found = side_metrics.coverage_of_bins(side_metrics.binned_place(rows, places), level)
    assert found == pytest.approx(level, abs=0.01)
    # A distribution that is sharper than the sides covers less.
    sharp = np.broadcast_to(np.array([0.0, 0.0, 0.9, 0.0, 0.1, 0.0, 0.0]), places.shape)
    place = side_metrics.binned_place(sharp, places)
    assert side_metrics.coverage_of_bins(place, level) < level - 0.1


def test_a_side_outside_of_the_bins_is_in_no_interval_and_costs_13_8_nats():
    places = (BINS - 25.0)[None]
    place = side_metrics.binned_place(PROBS[None], places)
    assert side_metrics.coverage_of_bins(place, 0.99) == 0
    densities = side_metrics.binned_density(PROBS[None], places)
    assert side_metrics.nll(densities) == pytest.approx(6 * math.log(10))


def test_densities_are_those_of_scipy():
    rng = np.random.default_rng(0)
    errors, stds = rng.normal(size=50), rng.uniform(0.3, 4, 50)
    np.testing.assert_allclose(
        side_metrics.gaussian_density(errors, stds), stats.norm.pdf(errors, scale=stds)
    )
    np.testing.assert_allclose(
        side_metrics.laplace_density(errors, stds),
        stats.laplace.pdf(errors, scale=stds / math.sqrt(2)),
    )


def test_nll_by_hand():
    """-log of densities 1/2 and 1/8, and of a density of 0, which counts as 1e-6."""
    assert side_metrics.nll(np.array([0.5, 0.125])) == pytest.approx(2 * math.log(2))
    assert side_metrics.nll(np.array([0.0])) == pytest.approx(6 * math.log(10))
    assert math.isnan(side_metrics.nll(np.zeros(0)))
    # A standard deviation of 0 counts as 1e-3 px: log(1e-3 * sqrt(2 pi)).
    perfect = side_metrics.nll(side_metrics.gaussian_density(np.zeros(3), np.zeros(3)))
    assert perfect == pytest.approx(math.log(1e-3 * math.sqrt(2 * math.pi)))


def test_sparsification_by_hand():
    """Errors 4, 0, 2 of mean 2. By std the first goes first, then the second: means 2, 1, 2. The
    oracle takes away 4, then 2: means 2, 1, 0. The gaps are 0, 0 and 2, over 2."""
    errors = np.array([4.0, 0.0, 2.0])
    stds = np.array([9.0, 5.0, 1.0])
    np.testing.assert_allclose(side_metrics.sparsification(errors, stds), [1, 0.5, 1])
    np.testing.assert_allclose(side_metrics.sparsification(errors, errors), [1, 0.5, 0])
    assert side_metrics.ause(errors, stds) == pytest.approx((0 + 0 + 1) / 3)
    assert side_metrics.ause(errors, errors**2) == pytest.approx(0)


def test_sparsification_by_equal_stds_is_flat():
    errors = np.array([3.0, 1.0, 2.0, 0.0])
    np.testing.assert_allclose(side_metrics.sparsification(errors, np.ones(4)), np.ones(4))
    # Two groups of two: means 2 (of 3 and 1) and 1 (of 2 and 0), the first goes first.
    groups = side_metrics.sparsification(errors, np.array([7.0, 7.0, 2.0, 2.0]))
    np.testing.assert_allclose(groups, np.array([1.5, 4 / 3, 1.0, 1.0]) / 1.5)


def test_sparsification_of_nothing():
    assert math.isnan(side_metrics.ause(np.zeros(0), np.zeros(0)))
    assert math.isnan(side_metrics.ause(np.zeros(4), np.ones(4)))  # no error to lower
