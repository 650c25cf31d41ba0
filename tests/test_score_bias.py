"""The example that compares the score of a perfect training with the mean label, and its table."""

import importlib
import math
import re
from pathlib import Path

import pytest
import torch

from gfocal.modeling.score_maps import MatchabilityAware, QualityFocal, Varifocal

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "examples")
    return importlib.import_module("score_bias")


def test_the_page_has_the_numbers_of_the_script(example):
    page = (DOCS / "uncertainty.md").read_text()
    header = "| object of quality | mean label | " + " | ".join(example.LOSSES) + " |\n"
    _, _, table = page.partition(header)
    rows = re.findall(r"^\| (\S+), (\d+) % .*? \| (.*) \|$", table, re.MULTILINE)
    found = [(float(q), float(share) / 100) for q, share, _ in rows]
    assert found[: len(example.CASES)] == example.CASES
    for (quality, share), (_, _, cells) in zip(example.CASES, rows):
        label, *numbers = map(float, cells.split(" | "))
        assert label == pytest.approx(quality * share, abs=5e-4)
        for number, maps in zip(numbers, example.LOSSES.values(), strict=True):
            (score,) = example.trained_scores(maps, quality, share, steps=4000)
            assert score == pytest.approx(number, abs=1e-3)


def test_qfl_is_proper_with_beta_0_alone(example):
    """The derivative of the mean loss is that of BCE with beta 0: q share - s. With beta 2 it is
    too high where objects are rare, and too low where they are sure."""
    for quality, share in example.CASES:
        (unbiased,) = example.trained_scores(QualityFocal(0), quality, share, steps=4000)
        assert unbiased == pytest.approx(quality * share, abs=3e-4)
    (rare,) = example.trained_scores(QualityFocal(2), 0.9, 0.1, steps=4000)
    (sure,) = example.trained_scores(QualityFocal(2), 0.9, 0.95, steps=4000)
    assert rare > 3 * 0.09 and sure < 0.855 - 0.1


def test_derivatives_by_hand(example):
    """At s = 3/4. MAL: s - q^1.5, and s^2.5, as its weight is detached. VFL: q (s - q), and
    3/4 s^2 (2 (1 - s) L + s) with L = -log(1 - s)."""
    scores, s, q = torch.tensor([0.75], dtype=torch.float64), 0.75, 0.25
    slope = 0.75 * s**2 * (0.5 * math.log(4) + s)
    for maps, positive, negative in (
        (MatchabilityAware(), s - q**1.5, s**2.5),
        (Varifocal(), q * (s - q), slope),
    ):
        assert example.derivatives(maps, scores, q).item() == pytest.approx(positive)
        assert example.derivatives(maps, scores, None).item() == pytest.approx(negative)
