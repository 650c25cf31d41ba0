"""The family of score losses: by hand, against dense formulas, and its members' equals."""

import math

import pytest
import torch
from torch.nn import functional as F

from gfocal.modeling import score_losses
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.losses import sparse_quality_focal_loss
from gfocal.modeling.numerics import joint_logits
from gfocal.modeling.quality import matched_quality, uniform
from gfocal.modeling.representations import GeneralDistribution
from gfocal.modeling.score_losses import sparse_score_loss
from gfocal.modeling.score_maps import (
    SCORE_MAPS,
    Focal,
    QualityFocal,
    Varifocal,
)
from gfocal.modeling.structures import DenseAnchors, DensePredictions, DenseTargets
from gfocal.modeling.terms import FocalLoss, GIoULoss, QualityFocalLoss, ScoreLoss

LN2, LN3 = math.log(2), math.log(3)
MEMBERS = pytest.mark.parametrize("name", SCORE_MAPS)
QUALITY = pytest.mark.parametrize("with_quality", [False, True], ids=["v1", "v2"])

# At p = 3/4, so z = ln 3, and q = 1/4. BCE(p, y) = -y ln(3/4) - (1 - y) ln(1/4) = 2 ln 2 - y ln 3,
# dBCE/dz = p - y, dp/dz = 3/16, and L = BCE(p, 0) = 2 ln 2. So a positive has the loss
# w (2 ln 2 - y ln 3) and the derivative w' 3/16 (2 ln 2 - y ln 3) + w (3/4 - y), w' = dw/dp.
# A negative has c (3/4)^g 2 ln 2 and c (3/4)^g (g/4 2 ln 2 + 3/4), or c (3/4)^(g+1) if detached.
T = 3**0.25 / 4  # (3/4)^(1/4) (1/4)^(3/4), IA-BCE's label
BY_HAND = {
    # y = 1, w = 1/4 (1/4)^2 = 1/64, w' = -2 1/4 1/4 = -1/8; c = 3/4, g = 2
    "focal": (
        (2 * LN2 - LN3) / 64,
        -1 / 8 * 3 / 16 * (2 * LN2 - LN3) - 1 / 256,
        27 / 64 * 2 * LN2,
        27 / 64 * (LN2 + 3 / 4),
    ),
    # y = 1/4, w = (1/4 - 3/4)^2 = 1/4, w' = -2 (1/4 - 3/4) = 1; c = 1, g = 2
    "qfl": (
        (2 * LN2 - LN3 / 4) / 4,
        3 / 16 * (2 * LN2 - LN3 / 4) + 1 / 8,
        9 / 16 * 2 * LN2,
        9 / 16 * (LN2 + 3 / 4),
    ),
    # y = w = 1/4, w' = 0; c = 3/4, g = 2
    "vfl": ((2 * LN2 - LN3 / 4) / 4, 1 / 8, 27 / 64 * 2 * LN2, 27 / 64 * (LN2 + 3 / 4)),
    # y = (1/4)^1.5 = 1/8, w = 1, w' = 0; c = 1, g = 1.5, detached
    "mal": (2 * LN2 - LN3 / 8, 5 / 8, 0.75**1.5 * 2 * LN2, 0.75**2.5),
    # y = T, without a derivative, w = 1, w' = 0; c = 1, g = 2
    "ia_bce": (2 * LN2 - T * LN3, 3 / 4 - T, 9 / 16 * 2 * LN2, 9 / 16 * (LN2 + 3 / 4)),
}


@MEMBERS
def test_by_hand(name):
    """One positive and one negative with the score 3/4."""
    logits = torch.full((2, 1), LN3, dtype=torch.float64, requires_grad=True)
    positive, negative = (
        sparse_score_loss(
            logits,
            None,
            (torch.tensor([0]), torch.tensor([0])),
            torch.tensor([0.25], dtype=torch.float64),
            torch.tensor(valid),
            SCORE_MAPS[name](),
        )
        for valid in ([True, False], [True, True])
    )
    both = negative.item()
    gradient = torch.autograd.grad(negative, logits)[0].flatten().tolist()
    loss, slope, loss_0, slope_0 = BY_HAND[name]
    assert positive.item() == pytest.approx(loss, rel=1e-12)
    assert both - positive.item() == pytest.approx(loss_0, rel=1e-12)
    assert gradient == pytest.approx([slope, slope_0], rel=1e-12)


def dense(name, z, q, positive):
    """The losses of joint logits z, written out. What a source detaches is detached here."""
    p = z.sigmoid()
    zero, one = torch.zeros_like(z), torch.ones_like(z)
    t = (p**0.25 * q**0.75).clamp(min=0.01).detach()
    label, weight, negative = {
        "focal": (one, 0.25 * (1 - p) ** 2, 0.75 * p**2),
        "qfl": (q, (q - p) ** 2, p**2),
        "vfl": (q, torch.where(q > 0, q, 0.75 * p**2), 0.75 * p**2),
        "mal": (q**1.5, one, p.detach() ** 1.5),
        "ia_bce": (t, one, p**2),
    }[name]
    bce = F.binary_cross_entropy_with_logits(
        z, torch.where(positive, label, zero), reduction="none"
    )
    return torch.where(positive, weight, negative) * bce


def case(with_quality, rows=7, classes=5, dtype=torch.float64, num_positives=4):
    """(cls_logits, quality_logits, positives, qualities, valid); location 2 is not valid."""
    generator = torch.Generator().manual_seed(0)
    cls = 3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    quality = 3 * torch.randn(rows, 1, generator=generator, dtype=torch.float64)
    positives = torch.tensor([0, 3, 3, 6]), torch.tensor([4, 0, 2, 1])
    qualities = torch.tensor([0.3, 1.0, 0.0, 0.9], dtype=torch.float64)
    return (
        cls.to(dtype).requires_grad_(),
        quality.to(dtype).requires_grad_() if with_quality else None,
        tuple(x[:num_positives] for x in positives),
        qualities[:num_positives],
        torch.arange(rows) != 2,
    )


def dense_sum(name, cls, quality, positives, qualities, valid):
    z = cls if quality is None else joint_logits(cls, quality)
    labels, is_positive = torch.zeros_like(z), torch.zeros_like(z, dtype=torch.bool)
    labels[positives], is_positive[positives] = qualities, True
    return (dense(name, z, labels, is_positive).sum(dim=1) * valid).sum()


@MEMBERS
@QUALITY
@pytest.mark.parametrize("num_positives", [0, 4])
@pytest.mark.parametrize("piece", [1, 10, 2**18])
def test_the_one_pass_is_the_dense_formula(name, with_quality, num_positives, piece, monkeypatch):
    monkeypatch.setattr(score_losses._SparseScoreLoss, "PIECE", piece)
    args = case(with_quality, num_positives=num_positives)
    inputs = [x for x in args[:2] if x is not None]
    ours = sparse_score_loss(*args, SCORE_MAPS[name]())
    expected = dense_sum(name, *args)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(expected, inputs)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)
        assert not a[2].any()  # exactly nothing from a location that is not valid
    with torch.no_grad():
        assert sparse_score_loss(*args, SCORE_MAPS[name]()) == ours


@QUALITY
@pytest.mark.parametrize(
    "maps", [Focal(0.4, 3.0), QualityFocal(1.5), Varifocal(0.5, 1.0)], ids=["focal", "qfl", "vfl"]
)
def test_gradcheck_where_nothing_is_detached(maps, with_quality):
    cls, quality, *_, valid = case(with_quality, rows=4, classes=2)
    positives = torch.tensor([0, 3, 3]), torch.tensor([1, 0, 1])
    rest = positives, torch.tensor([0.3, 1.0, 0.0], dtype=torch.float64), valid
    inputs = (cls, quality) if with_quality else (cls,)
    assert torch.autograd.gradcheck(lambda a, b=None: sparse_score_loss(a, b, *rest, maps), inputs)


@MEMBERS
@QUALITY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, with_quality, dtype):
    args = case(with_quality, dtype=dtype)
    loss = sparse_score_loss(*args, SCORE_MAPS[name]())
    expected = dense_sum(name, *(None if x is None else x.double() for x in args[:2]), *args[2:])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert all(x.grad.dtype == dtype and x.grad.isfinite().all() for x in args[:2] if x is not None)


@MEMBERS
@QUALITY
def test_huge_logits(name, with_quality):
    """A diverging network has finite gradients, and no negative loss."""
    for logit in (100.0, -100.0, 1e4, -1e4):
        cls = torch.full((3, 2), logit, requires_grad=True)
        quality = torch.full((3, 1), logit, requires_grad=True) if with_quality else None
        positives = torch.tensor([0, 1]), torch.tensor([0, 1])
        rest = torch.tensor([0.0, 0.7]), torch.ones(3, dtype=torch.bool)
        loss = sparse_score_loss(cls, quality, positives, *rest, SCORE_MAPS[name]())
        loss.backward()
        assert loss.isfinite() and loss >= -1e-6
        assert all(x.grad.isfinite().all() for x in (cls, quality) if x is not None)


@MEMBERS
def test_nothing_at_all(name):
    """A batch without locations."""
    none = torch.zeros(0, dtype=torch.int64)
    cls = torch.zeros(0, 3, requires_grad=True)
    valid = torch.zeros(0, dtype=torch.bool)
    loss = sparse_score_loss(cls, None, (none, none), torch.zeros(0), valid, SCORE_MAPS[name]())
    loss.backward()
    assert loss == 0 and cls.grad.shape == (0, 3)


@QUALITY
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 2.5])
def test_qfl_is_qfl_to_the_bit(with_quality, beta):
    args = case(with_quality, dtype=torch.float32)
    inputs = [x for x in args[:2] if x is not None]
    ours = sparse_score_loss(*args, QualityFocal(beta), 0.3)
    qfl = sparse_quality_focal_loss(*args, beta, 0.3)
    assert ours == qfl
    pairs = zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(qfl, inputs))
    assert all(torch.equal(a, b) for a, b in pairs)


def loss_of(term, with_quality):
    """loss_cls of a made-up batch, and its gradients: 2 images of 9 locations, 3 classes."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.meshgrid(*[torch.arange(3.0) * 8] * 2, indexing="xy")
    centers = torch.stack([x, y], dim=-1).flatten(0, 1)
    boxes = torch.cat([centers - 32, centers + 32], dim=1)
    logits = [2 * torch.randn(2, 9, n, generator=generator) for n in (3, 1)]
    predictions = DensePredictions(
        logits[0].requires_grad_(),
        torch.zeros(2, 9, 4, 3),
        logits[1].requires_grad_() if with_quality else None,
        GeneralDistribution(reg_max=2),
    )
    labels = torch.randint(-1, 4, (2, 9), generator=generator)
    assert set(labels.flatten().tolist()) == {-1, 0, 1, 2, 3}  # ignored, classes, background
    sizes = 8 * torch.rand(2, 9, 1, generator=generator) + 4
    targets = torch.cat([centers - sizes, centers + sizes], dim=-1)
    anchors = DenseAnchors(boxes, torch.full((9,), 8.0), [(3, 3)])
    criterion = GFLCriterion(cls_loss=term, box_loss=GIoULoss())
    loss = criterion(anchors, predictions, DenseTargets(labels, targets))["loss_cls"]
    return loss.item(), torch.autograd.grad(loss, logits[: 1 + with_quality], allow_unused=True)


@QUALITY
def test_the_term_qfl_is_the_term_of_that_name(with_quality):
    ours, gradients = loss_of(ScoreLoss(maps="qfl", weight=0.5), with_quality)
    expected, theirs = loss_of(QualityFocalLoss(weight=0.5), with_quality)
    assert ours == expected > 0 and gradients[0].any()
    assert all(torch.equal(a, b) for a, b in zip(gradients, theirs))


def test_the_term_focal_is_focal_loss_where_the_class_alone_is_the_score():
    maps = Focal(alpha=0.4, gamma=1.5)
    ours, gradients = loss_of(ScoreLoss(maps=maps, weight=0.5), False)
    expected, theirs = loss_of(FocalLoss(alpha=0.4, gamma=1.5, weight=0.5), False)
    assert ours == pytest.approx(expected, rel=1e-5)
    for a, b in zip(gradients, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)
    # FocalLoss knows the class alone; with a quality the family trains the joint score.
    assert (
        loss_of(ScoreLoss(maps=maps), True)[0] != loss_of(FocalLoss(alpha=0.4, gamma=1.5), True)[0]
    )


def test_a_positive_of_quality_0_is_a_negative_of_vfl():
    nothing = torch.zeros(1)
    args = torch.full((1, 1), LN3), None, (torch.tensor([0]), torch.tensor([0])), nothing
    loss = sparse_score_loss(*args, torch.tensor([True]), Varifocal())
    assert loss.item() == pytest.approx(BY_HAND["vfl"][2])


def test_the_measure_is_the_quality():
    """With qualities of 1, MAL's positives are labelled 1, and QFL's too."""
    for name in ("mal", "qfl"):
        ours = loss_of(ScoreLoss(maps=name, measure=uniform), False)[0]
        assert ours != pytest.approx(loss_of(ScoreLoss(maps=name), False)[0], rel=1e-3)
    with pytest.raises(ValueError, match="matched_quality has nothing to read"):
        loss_of(ScoreLoss(maps="vfl", measure=matched_quality), False)
