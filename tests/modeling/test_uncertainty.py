"""Calibrated scores against the minimiser of QFL itself, and the map that is saved with weights."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfocal.modeling.losses import quality_focal_loss
from gfocal.modeling.uncertainty import Calibration, calibrated_score, central_half_width

# QFL with beta 2, labels q at a fraction p of alike locations and 0 at the rest: its minimiser, and
# the mean label q * p that it should be.
MINIMISERS = [
    (0.9, 0.1, 0.280, 0.090),
    (0.8, 0.3, 0.356, 0.240),
    (0.9, 0.5, 0.465, 0.450),
    (0.9, 0.8, 0.590, 0.720),
    (0.9, 0.95, 0.715, 0.855),
]


def minimiser(q, p, beta=2.0):
    """The score that minimises the mean QFL, on a grid of 1e-5."""
    scores = torch.arange(1, 100_000, dtype=torch.float64) / 100_000
    logits = scores.logit()
    loss = p * quality_focal_loss(logits, torch.full_like(logits, q), beta=beta)
    loss += (1 - p) * quality_focal_loss(logits, torch.zeros_like(logits), beta=beta)
    return float(scores[loss.argmin()])


@pytest.mark.parametrize(("q", "p", "score", "label"), MINIMISERS)
def test_the_score_of_a_perfect_training_and_what_it_means(q, p, score, label):
    assert minimiser(q, p) == pytest.approx(score, abs=6e-4)
    found = calibrated_score(torch.tensor([minimiser(q, p)], dtype=torch.float64), q)
    assert float(found) == pytest.approx(label, abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(st.floats(0.3, 0.97), st.floats(0.02, 0.98), st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_it_inverts_the_minimiser_of_any_beta(q, p, beta):
    score = torch.tensor(minimiser(q, p, beta), dtype=torch.float64)
    # The grid's step of 1e-5 is magnified where the map is steep, near q.
    low, high = (float(calibrated_score(score + x, q, beta)) for x in (-2e-5, 2e-5))
    assert low - 1e-6 <= q * p <= high + 1e-6


def test_with_beta_0_a_score_is_the_mean_label_already():
    assert minimiser(0.9, 0.1, beta=0.0) == pytest.approx(0.09, abs=1e-5)
    scores = torch.rand(5)
    assert calibrated_score(scores, 0.9, beta=0.0) is scores


@given(st.floats(0.05, 0.99))
def test_it_increases_from_0_to_q_and_leaves_what_is_above(q):
    scores = torch.linspace(0, 1, 2001, dtype=torch.float64)
    found = calibrated_score(scores, q)
    assert (found.diff() > 0).all()
    assert float(found[0]) == pytest.approx(0, abs=1e-6)
    assert torch.equal(found[scores >= q], scores[scores >= q])
    assert (found[scores < q] < q).all()
    assert calibrated_score(scores.float(), q).dtype == torch.float32


@pytest.mark.parametrize("mean_iou", [0.0, 1.0, -0.2, math.nan])
def test_a_mean_iou_that_is_none(mean_iou):
    with pytest.raises(ValueError, match=f"mean_iou is {mean_iou}; expected the mean of IoUs"):
        calibrated_score(torch.rand(2), mean_iou)


def test_half_widths_hold_what_they_say_of_laplace_errors():
    """P(|x| <= w) of a Laplace distribution of scale b is 1 - exp(-w / b); its std is sqrt(2) b."""
    assert central_half_width(1.0, 0.5) == pytest.approx(math.log(2) / math.sqrt(2))
    errors = np.abs(np.random.default_rng(0).laplace(scale=3.0, size=100_000))
    for level in (0.5, 0.8, 0.9):
        inside = errors <= central_half_width(np.full(100_000, 3 * math.sqrt(2)), level)
        assert inside.mean() == pytest.approx(level, abs=5e-3)
    with pytest.raises(ValueError, match="level is 90; expected a probability"):
        central_half_width(1.0, 90)


def test_a_map_of_scores_is_linear_between_its_points():
    calibration = Calibration(scores=[0, 0.2, 0.6, 1], values=[0, 0.05, 0.7, 0.9])
    # 0.1 is halfway to (0.2, 0.05); 0.4 halfway from there to (0.6, 0.7); 0.7 a quarter of the rest
    found = calibration.score(torch.tensor([0.0, 0.1, 0.2, 0.4, 0.6, 0.7, 1.0]))
    torch.testing.assert_close(found, torch.tensor([0, 0.025, 0.05, 0.375, 0.7, 0.75, 0.9]))
    assert torch.equal(Calibration().score(found), found)
    assert calibration.score(torch.zeros(0, 3)).shape == (0, 3)


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20, unique=True))
def test_a_map_keeps_the_order(scores):
    calibration = Calibration(scores=[0, 0.3, 0.31, 1], values=[0.01, 0.02, 0.8, 0.81])
    scores = torch.tensor(sorted(scores), dtype=torch.float64)
    assert (calibration.score(scores).diff() > 0).all() or scores.diff().min() < 1e-12


def test_a_calibration_goes_through_plain_data():
    calibration = Calibration(0.4, (0.0, 0.5, 1.0), (0.0, 0.4, 0.9), "isotonic", {"images": 7})
    data = calibration.plain()
    assert data["scores"] == [0.0, 0.5, 1.0]
    again = Calibration.from_plain(data, "w.pth")
    assert again.plain() == data and again.std_scale == 0.4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "w.pth: its calibration is int; expected some of"),
        ({"std": 1.0}, r"w.pth: its calibration is \['std'\]; expected some of"),
        ({"std_scale": 0.0}, "w.pth: std_scale is 0.0; expected a number above 0"),
        ({"std_scale": "1"}, "w.pth: std_scale is '1'; expected a number above 0"),
        ({"scores": [0, 1], "values": [0, 0.5, 1]}, "two lists of as many numbers"),
        ({"scores": [0, 0.5], "values": [0, 1]}, "must increase from 0 to 1"),
        ({"scores": [0, 0.5, 1], "values": [0, 0.5, 0.5]}, "must increase from 0 to 1"),
        ({"scores": [0, 1], "values": [0, 1.5]}, "must increase from 0 to 1"),
        ({"scores": [0, math.nan, 1], "values": [0, 0.5, 1]}, "two lists of as many numbers"),
    ],
)
def test_what_is_no_calibration(data, message):
    with pytest.raises(ValueError, match=message):
        Calibration.from_plain(data, "w.pth")
