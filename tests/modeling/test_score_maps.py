"""The members of the family of score losses: their numbers, what a config says, what is refused."""

import copy
import math
import pickle

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate

from gfocal.modeling.score_losses import sparse_score_loss
from gfocal.modeling.score_maps import (
    SCORE_MAPS,
    Focal,
    IoUAware,
    MatchabilityAware,
    NegativeWeight,
    QualityFocal,
    Varifocal,
    score_maps,
)
from gfocal.modeling.terms import ScoreLoss


def test_the_label_of_ia_bce_is_at_least_one_percent():
    label = IoUAware().target(torch.tensor([0.5, 1e-9, 0.81]), torch.tensor([0.0, 1e-3, 0.81]))
    assert label.tolist() == pytest.approx([0.01, 0.01, 0.81])


class HalfQuality:
    """Maps of somebody else: the label is q / 2, a positive weighs 2."""

    def __init__(self, **kwargs):
        self.negative = kwargs.pop("negative", NegativeWeight(0.5, 1.0))
        self.__dict__.update(kwargs)

    def target(self, p, q):
        return q / 2

    def positive_weight(self, p, q):
        return torch.full_like(q, 2)


def test_maps_of_your_own():
    """At p = 3/4 and q = 1/4 a positive has 2 BCE(3/4, 1/8) = -1/4 ln(3/4) - 7/4 ln(1/4), and a
    negative 1/2 3/4 BCE(3/4, 0) = -3/8 ln(1/4)."""
    args = torch.full((2, 1), math.log(3)), None, (torch.tensor([0]), torch.tensor([0]))
    rest = torch.tensor([0.25]), torch.ones(2, dtype=torch.bool)
    loss = sparse_score_loss(*args, *rest, ScoreLoss(maps=HalfQuality()).maps)
    expected = -math.log(3 / 4) / 4 - (7 / 4 + 3 / 8) * math.log(1 / 4)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", SCORE_MAPS)
def test_terms_of_a_config(name):
    by_name = instantiate(L(ScoreLoss)(maps=name, weight=2.0))
    by_call = instantiate(L(ScoreLoss)(maps=L(SCORE_MAPS[name])(), weight=2.0))
    assert type(by_name.maps) is type(by_call.maps) is SCORE_MAPS[name]
    assert by_name.maps.negative == by_call.maps.negative
    for term in (copy.deepcopy(by_name), pickle.loads(pickle.dumps(by_name))):
        assert vars(term.maps) == vars(by_name.maps) and term.weight == 2.0


def test_numbers_of_the_sources():
    """The defaults are those of the papers and their code."""
    negatives = {name: maps().negative for name, maps in SCORE_MAPS.items()}
    assert negatives == {
        "focal": NegativeWeight(0.75, 2.0),
        "qfl": NegativeWeight(1.0, 2.0),
        "vfl": NegativeWeight(0.75, 2.0),
        "mal": NegativeWeight(1.0, 1.5, detached=True),
        "ia_bce": NegativeWeight(1.0, 2.0),
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Focal(alpha=1.5), r"alpha is 1.5; expected a number in \[0, 1\]"),
        (lambda: Focal(gamma=0.5), "gamma is 0.5; expected 0 or at least 1"),
        (lambda: QualityFocal(beta=0.5), "beta is 0.5; expected 0 or at least 1"),
        (lambda: Varifocal(alpha=-1), "alpha is -1; expected a number of at least 0"),
        (lambda: MatchabilityAware(gamma=-1), "gamma is -1; expected 0 or at least 1"),
        (lambda: IoUAware(alpha="a"), r"alpha is 'a'; expected a number in \[0, 1\]"),
        (lambda: NegativeWeight(math.nan), "factor is nan; expected a number of at least 0"),
        (lambda: ScoreLoss(maps="qfl", weight=-1), "weight is -1; expected a number of at least 0"),
        (
            lambda: ScoreLoss(maps="gfl"),
            "'gfl'; expected one of 'focal', 'qfl', 'vfl', 'mal', 'ia_bce'",
        ),
        (
            lambda: ScoreLoss(maps=None),
            "maps is None; expected a name, or an object with the methods",
        ),
        (lambda: score_maps(Varifocal), "maps is <class .*Varifocal'>; expected a name"),
        (lambda: score_maps(HalfQuality(negative=0.5)), "and a NegativeWeight as negative"),
        (
            lambda: score_maps(HalfQuality(target=lambda p, q: q.mean())),
            r"HalfQuality.target answered \(\) for p and q of shape \(9,\)",
        ),
        (
            lambda: score_maps(HalfQuality(positive_weight=lambda p, q: 1.0)),
            "HalfQuality.positive_weight answered float for p and q",
        ),
        (
            lambda: score_maps(HalfQuality(target=lambda p, q: p + q)),
            r"HalfQuality.target answered .*1.99.*; expected numbers in \[0, 1.0\]",
        ),
        (
            lambda: score_maps(HalfQuality(positive_weight=lambda p, q: q - p)),
            r"HalfQuality.positive_weight answered .*; expected numbers in \[0, inf\]",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
