"""reliability.png: what its titles and lines say."""

import re

import numpy as np
import pytest

from gfocal.inspect.reliability import draw_reliability, picture
from gfocal.inspect.reliability.matching import Matched, Sides
from gfocal.inspect.reliability.measuring import Evidence, curves_of, measure


def evidence(stds=True, bins=True, count=400):
    """Scores whose objects overlap by .9 of them, and Laplace errors as sure as they say."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.3, 1, count)
    ious = 0.9 * scores
    matched = Matched(
        *(scores, np.zeros(count, int), ious, np.arange(count), np.full(count, 50.0)),
        *(np.arange(count), np.arange(count)),
    )
    strict = matched._replace(
        ious=np.where(ious < 0.5, 0, ious), objects=np.where(ious < 0.5, -1, matched.objects)
    )
    number = int(strict.is_true.sum())
    of_stds = rng.uniform(1, 9, (number, 4))
    errors = rng.laplace(scale=of_stds / np.sqrt(2))
    places = np.linspace(-40, 40, 17) - errors[..., None]
    probabilities = np.exp(-np.abs(np.linspace(-40, 40, 17)) / of_stds[..., None])
    probabilities /= probabilities.sum(-1, keepdims=True)
    sides = Sides(
        errors,
        of_stds if stds else None,
        probabilities if bins else None,
        places if bins else None,
    )
    return Evidence(matched, strict, sides, np.zeros(count, int), np.full(count, 50.0), 0.5)


@pytest.fixture
def drawn(monkeypatch):
    """A function that draws, and returns the figure and the picture."""
    figures = []
    real = picture.render
    monkeypatch.setattr(picture, "render", lambda figure: figures.append(figure) or real(figure))

    def draw(found):
        metrics, _ = measure(found, ["a"])
        pixels = draw_reliability(metrics, curves_of(found), "the dataset")
        return figures[-1], pixels, metrics

    return draw


def test_titles_are_sentences_with_the_numbers(drawn):
    found = evidence()
    figure, pixels, metrics = drawn(found)
    assert pixels.shape == (1100, 1300, 3)
    assert pixels.dtype == np.uint8
    number = int(found.strict.is_true.sum())
    assert figure._suptitle.get_text() == f"the dataset: 400 detections, {number} of them right"
    scores, errors, coverage, sparse = (x.get_title() for x in figure.axes[:4])
    # The bin that is next to .8: all its detections are right, and overlap by .9 of their score.
    sentence, measured = scores.splitlines()
    pattern = r"Boxes that score (0\.\d\d) overlap the truth by (0\.\d\d) on average"
    score, overlap = map(float, re.fullmatch(pattern, sentence).groups())
    assert score == pytest.approx(0.8, abs=0.1)
    assert overlap == pytest.approx(0.9 * score, abs=0.01)
    assert measured == f"(LaECE {metrics['LaECE']:.3f}, D-ECE {metrics['DECE']:.3f})"
    assert errors.startswith("Sides with a standard deviation of 1.3 px are off by ")
    held = round(100 * metrics["coverage80"])
    assert 77 <= held <= 83
    assert coverage == f"Intervals meant to hold 80 % of the true sides hold {held} %"
    assert sparse.startswith("The surer half of the sides has ")


def test_lines_are_the_curves(drawn):
    found = evidence()
    figure, _, _ = drawn(found)
    curves = curves_of(found)
    lines = {x.get_label(): x for axes in figure.axes for x in axes.get_lines()}
    left = lines["left"]
    np.testing.assert_allclose(left.get_ydata(), 100 * curves["coverage"]["left"])
    # Errors of the std that they say: within 6 points of the diagonal.
    np.testing.assert_allclose(left.get_ydata(), left.get_xdata(), atol=6)
    overlap = lines["overlap (IoU), 0 if wrong"]
    np.testing.assert_allclose(overlap.get_ydata(), 0.9 * overlap.get_xdata())
    said = lines["mean |error|; each dot has as many sides"]
    np.testing.assert_allclose(said.get_ydata(), said.get_xdata() / np.sqrt(2), rtol=0.35)
    assert lines["ordered by standard deviation"].get_ydata()[0] == pytest.approx(100)


def test_without_distributions_and_without_stds(drawn):
    figure, _, _ = drawn(evidence(bins=False))
    assert len(figure.axes) == 5  # four, and the histogram
    assert "dotted: by distribution" not in {
        x.get_text() for x in figure.axes[2].get_legend().get_texts()
    }
    figure, pixels, _ = drawn(evidence(stds=False, bins=False))
    assert len(figure.axes) == 2
    assert pixels.shape == (580, 660, 3)


def test_a_single_detection(drawn):
    figure, pixels, _ = drawn(evidence(count=1))
    assert pixels.any()
    assert "overlap the truth by" in figure.axes[0].get_title()
