"""Calibrations that are fitted: of known errors, of scores that mean something else."""

import numpy as np
import pytest
import torch

from gfocal.inspect.calibrating import closed_form, fit_std_scale, isotonic
from gfocal.modeling.uncertainty import Calibration, calibrated_score, central_half_width


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_the_scale_of_laplace_errors_is_found(factor):
    """Errors of standard deviation ``factor`` times what the detector says."""
    rng = np.random.default_rng(0)
    stds = rng.uniform(1, 20, (20_000, 4))
    errors = rng.laplace(scale=factor * stds / np.sqrt(2))
    scale = fit_std_scale(errors, stds)
    assert scale == pytest.approx(factor, rel=0.02)
    for level in (0.5, 0.8, 0.9):
        covered = (np.abs(errors) <= central_half_width(scale * stds, level)).mean()
        assert covered == pytest.approx(level, abs=0.01)


def test_nothing_to_fit_on():
    with pytest.raises(ValueError, match="no true positive to fit standard deviations on"):
        fit_std_scale(np.zeros((0, 4)), np.zeros((0, 4)))
    with pytest.raises(ValueError, match="half of the sides have no error at all"):
        fit_std_scale(np.zeros((3, 4)), np.ones((3, 4)))
    for count in (0, 3):
        with pytest.raises(ValueError, match="no true positive to fit scores on"):
            isotonic(np.linspace(0.1, 0.9, count), np.zeros(count))


@pytest.mark.parametrize("mean_iou", [0.3, 0.6, 0.87, 0.99])
def test_the_closed_form_as_points_is_the_closed_form(mean_iou):
    scores = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    exact = calibrated_score(scores, mean_iou).numpy()
    points = closed_form(mean_iou)
    np.testing.assert_allclose(points(scores.numpy()), exact, atol=1e-3)
    calibration = Calibration(scores=points.scores.tolist(), values=points.values.tolist())
    np.testing.assert_allclose(calibration.score(scores).numpy(), points(scores.numpy()))


def test_isotonic_by_hand():
    """Labels 0.1, 0.4, 0.2, 0.9 in the order of scores: 0.4 and 0.2 fall, and become their mean 0.3
    at the mean of their scores, 0.5."""
    found = isotonic(np.array([0.8, 0.2, 0.6, 0.4]), np.array([0.9, 0.1, 0.2, 0.4]))
    np.testing.assert_allclose(found.scores, [0, 0.2, 0.5, 0.8, 1])
    # behind the last step 0.01 of what is left
    np.testing.assert_allclose(found.values, [0, 0.1, 0.3, 0.9, 0.9 + 0.01 * 0.1])
    assert found(np.array([0.35]))[0] == pytest.approx(0.2)


def test_isotonic_is_that_of_scikit_learn_but_between_the_steps():
    sklearn = pytest.importorskip("sklearn.isotonic")
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.05, 0.95, 3000)
    labels = (rng.uniform(size=3000) < scores**2).astype(float) * 0.9
    ours = isotonic(scores, labels)
    theirs = sklearn.IsotonicRegression(out_of_bounds="clip").fit(scores, labels)
    inner = ours.scores[1:-1]
    # At the centre of a step both have its value.
    np.testing.assert_allclose(ours(inner), theirs.predict(inner), atol=1e-6)
    assert np.abs(ours(scores) - theirs.predict(scores)).mean() < 0.02
    assert (np.diff(ours.scores) > 0).all() and (np.diff(ours.values) > 0).all()
    Calibration(scores=ours.scores.tolist(), values=ours.values.tolist())


@pytest.mark.parametrize("label", [0.7, 1.0])
def test_all_labels_alike(label):
    found = isotonic(np.array([0.2, 0.5]), np.array([label, label]))
    Calibration(scores=found.scores.tolist(), values=found.values.tolist())
    # One step, whose centre is 0.35.
    assert found(np.array([0.35]))[0] == pytest.approx(label, abs=1e-5)


def test_scores_that_found_nothing_become_almost_0():
    scores = np.array([0.1, 0.2, 0.3, 0.8])
    found = isotonic(scores, np.array([0.0, 0.0, 0.0, 0.9]))
    np.testing.assert_allclose(found(np.array([0.1, 0.2])), 0, atol=1e-5)
