"""QFL, DFL and GFL (Eq. 2, 6, 7): official values, hand-derived ones, and how they relate."""

import math

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from gfocal.modeling import score_losses
from gfocal.modeling.losses import (
    distribution_focal_loss,
    generalized_focal_loss,
    generalized_iou_loss,
    quality_focal_loss,
    sparse_quality_focal_loss,
)
from gfocal.modeling.numerics import joint_logits
from tests.helpers import official


@pytest.fixture(scope="module")
def numbers():
    return {k: torch.from_numpy(v) for k, v in official.load("losses").items()}


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 2.5, 4.0])
def test_official_qfl(numbers, beta):
    logits = numbers["logits"].clone().requires_grad_()
    targets = torch.zeros_like(logits)
    foreground = numbers["label"] < logits.shape[1]
    rows = foreground.nonzero().squeeze(1)
    targets[rows, numbers["label"][rows]] = numbers["score"][rows]
    loss = quality_focal_loss(logits, targets, beta=beta)
    loss.sum().backward()
    torch.testing.assert_close(
        loss.sum(dim=1), numbers[f"qfl_logits_beta{beta}"], rtol=1e-6, atol=1e-12
    )
    torch.testing.assert_close(
        logits.grad, numbers[f"qfl_logits_grad_beta{beta}"], rtol=1e-6, atol=1e-12
    )


def test_official_dfl(numbers):
    logits = numbers["dfl_logits"].clone().requires_grad_()
    loss = distribution_focal_loss(logits, numbers["dfl_target"])
    loss.sum().backward()
    torch.testing.assert_close(loss, numbers["dfl"], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(logits.grad, numbers["dfl_grad"], rtol=1e-6, atol=1e-12)


def test_official_giou(numbers):
    boxes = numbers["giou_pred"].clone().requires_grad_()
    loss = generalized_iou_loss(boxes, numbers["giou_target"])
    loss.sum().backward()
    torch.testing.assert_close(loss, numbers["giou"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(boxes.grad, numbers["giou_grad"], rtol=1e-5, atol=1e-7)


def test_giou_by_hand():
    # Side by side, a gap of their size between: 1 - 0 + 1/3. Half of one: 1 - 1/2 + 0.
    box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    for other, expected in (([4.0, 0.0, 6.0, 2.0], 4 / 3), ([0.0, 0.0, 2.0, 1.0], 0.5)):
        loss = generalized_iou_loss(box, torch.tensor([other]), reduction="sum")
        assert loss.item() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"boxes2"):
        generalized_iou_loss(box, box[0])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_giou_equals_torchvision(seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(2, 20, 4, dtype=torch.float64, generator=generator) * 10
    corners[1, :4] = corners[0, :4]
    corners[0, 4, 2:] = corners[0, 4, :2]  # an empty box
    a, b = torch.cat([corners[..., :2], corners[..., :2] + corners[..., 2:]], dim=-1)
    a.requires_grad_()
    ours, theirs = generalized_iou_loss(a, b), generalized_box_iou_loss(a, b)
    torch.testing.assert_close(ours, theirs)
    (ours,), (theirs,) = (torch.autograd.grad(x[4:].sum(), a) for x in (ours, theirs))
    torch.testing.assert_close(ours, theirs)


def test_giou_of_an_inverted_box():
    """A box whose sides are on the wrong side of each other is worse the more they are, in one
    direction or in both: its area is negative."""
    sides = torch.tensor([-0.5, -1.0, -2.0, -16.0])
    truth = torch.tensor([[-2.0, -2.0, 2.0, 2.0]]).expand(4, 4)
    for other in (sides, sides.new_full((4,), 2.0)):
        boxes = torch.stack([-sides, -other, sides, other], dim=1).requires_grad_()
        loss = generalized_iou_loss(boxes, truth)
        area = -(2 * sides).abs() * (2 * other).abs()
        # The truth, of 16, is the smallest box around its own corners and these.
        torch.testing.assert_close(loss.detach(), 1 + (16 - (area + 16)) / 16)
        assert (loss.diff() > 0).all() and (loss > 1).all()
        (grad,) = torch.autograd.grad(loss.sum(), boxes)
        assert (grad[:, 0] > 0).all() and (grad[:, 2] < 0).all()  # apart


def test_qfl_by_hand():
    # s = sigmoid(0) = 1/2, y = 3/4: |1/4|^2 * -(3/4 ln 1/2 + 1/4 ln 1/2) = ln 2 / 16
    loss = quality_focal_loss(torch.zeros(1), torch.tensor([0.75]))
    assert loss.item() == pytest.approx(math.log(2) / 16)
    # s = sigmoid(ln 3) = 3/4, y = 0: (3/4)^2 * -ln(1/4) = 9/16 ln 4
    loss = quality_focal_loss(torch.tensor([math.log(3)]), torch.zeros(1))
    assert loss.item() == pytest.approx(9 / 16 * math.log(4))


def test_dfl_by_hand():
    # Uniform over 4 bins: every S_i is 1/4, so the loss is ln 4 wherever y lies.
    loss = distribution_focal_loss(torch.zeros(1, 4), torch.tensor([1.3]))
    assert loss.item() == pytest.approx(math.log(4))
    # S = (1/2, 1/4, 1/4), y = 0.25: 0.75 ln 2 + 0.25 ln 4 = 1.25 ln 2
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    loss = distribution_focal_loss(logits, torch.tensor([0.25]))
    assert loss.item() == pytest.approx(1.25 * math.log(2))


def test_dfl_is_smallest_at_its_own_interpolation():
    # Eq. 6's global minimum is S_i = i+1-y, S_{i+1} = y-i (Sec. 3): there the gradient vanishes.
    y = 2.3
    probs = torch.tensor([[1e-30, 1e-30, 0.7, 0.3, 1e-30]], dtype=torch.float64)
    logits = probs.log().requires_grad_()
    distribution_focal_loss(logits, torch.tensor([y], dtype=torch.float64)).sum().backward()
    assert logits.grad.abs().max() < 1e-12


def test_gfl_by_hand():
    # y_l = 2, y_r = 4, p_l = p_r = 1/2: estimate 3; y = 3.5: |0.5|^2 * (0.5 + 1.5) ln 2
    loss = generalized_focal_loss(
        torch.tensor([0.5]), torch.tensor([0.5]), torch.tensor([3.5]), y_left=2.0, y_right=4.0
    )
    assert loss.item() == pytest.approx(0.25 * 2.0 * math.log(2))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), beta=st.sampled_from([0.0, 1.0, 2.0, 2.5, 4.0]))
def test_special_cases_of_gfl(seed, beta):
    """App. C: focal loss, QFL and DFL are Eq. 7 with particular labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(20, dtype=torch.float64, generator=generator) * 3
    soft = torch.rand(20, dtype=torch.float64, generator=generator)
    hard = (soft > 0.5).double()
    p = logits.sigmoid()
    torch.testing.assert_close(
        generalized_focal_loss(1 - p, p, soft, beta=beta),
        quality_focal_loss(logits, soft, beta=beta),
    )
    p_true = torch.where(hard == 1, p, 1 - p)
    torch.testing.assert_close(
        generalized_focal_loss(1 - p, p, hard, beta=beta), -((1 - p_true) ** beta) * p_true.log()
    )
    torch.testing.assert_close(  # fvcore's is float32
        quality_focal_loss(logits, hard, beta=beta).float(),
        sigmoid_focal_loss(logits, hard, alpha=-1, gamma=beta),
        rtol=1e-4,
        atol=1e-5,
    )
    bins = torch.randn(20, 9, dtype=torch.float64, generator=generator)
    y = soft * 8
    left = y.long()
    probs = bins.softmax(dim=1)
    torch.testing.assert_close(
        generalized_focal_loss(
            probs.gather(1, left[:, None])[:, 0],
            probs.gather(1, left[:, None] + 1)[:, 0],
            y,
            y_left=left,
            y_right=left + 1,
            beta=0.0,
        ),
        distribution_focal_loss(bins, y),
    )


def test_gradients():
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(6, 5, dtype=torch.float64)
    for beta in (0.0, 1.0, 2.0, 2.5):
        assert torch.autograd.gradcheck(lambda x, b=beta: quality_focal_loss(x, targets, b), logits)
    y = torch.rand(6, dtype=torch.float64) * 3.9
    assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, y), logits)


@pytest.mark.parametrize("value", [-1e4, -50.0, 0.0, 50.0, 1e4])
def test_extreme_logits_are_finite(value):
    logits = torch.full((4,), value, requires_grad=True)
    loss = quality_focal_loss(logits, torch.tensor([0.0, 0.3, 0.7, 1.0]), reduction="sum")
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
    bins = torch.zeros(2, 17)
    bins[:, 3] = value
    bins.requires_grad_()
    loss = distribution_focal_loss(bins, torch.tensor([0.0, 15.9]), reduction="sum")
    loss.backward()
    assert loss.isfinite() and bins.grad.isfinite().all()


def test_reductions():
    logits, targets = torch.randn(3, 4), torch.rand(3, 4)
    each = quality_focal_loss(logits, targets)
    assert each.shape == (3, 4)
    torch.testing.assert_close(quality_focal_loss(logits, targets, reduction="sum"), each.sum())
    torch.testing.assert_close(quality_focal_loss(logits, targets, reduction="mean"), each.mean())
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(quality_focal_loss(logits, targets, beta=0.0), bce)


def test_errors():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2,\)"):
        quality_focal_loss(torch.zeros(2, 3), torch.zeros(2))
    for beta in (-1, 0.5):
        with pytest.raises(ValueError, match=f"beta is {beta}; expected 0 or at least 1"):
            quality_focal_loss(torch.zeros(2), torch.zeros(2), beta=beta)
    with pytest.raises(ValueError, match="reduction is 'avg'"):
        quality_focal_loss(torch.zeros(2), torch.zeros(2), reduction="avg")
    with pytest.raises(ValueError, match=r"\(2, 5\).*\(3,\)"):
        distribution_focal_loss(torch.zeros(2, 5), torch.zeros(3))
    with pytest.raises(ValueError, match="p_left"):
        generalized_focal_loss(torch.zeros(2), torch.zeros(3), torch.zeros(3))


def sparse_case(with_quality, dtype=torch.float64, num_locations=7, num_classes=5):
    """(cls_logits, quality_logits, positives, targets, valid); location 2 is not valid."""
    generator = torch.Generator().manual_seed(0)
    cls = torch.randn(num_locations, num_classes, generator=generator, dtype=dtype) * 3
    quality = torch.randn(num_locations, 1, generator=generator, dtype=dtype) * 3
    valid = torch.ones(num_locations, dtype=torch.bool)
    valid[2] = False
    positives = torch.tensor([0, 3, 3, 6]), torch.tensor([4, 0, 2, 1])
    targets = torch.tensor([0.3, 1.0, 0.0, 0.9], dtype=dtype)
    quality = quality.requires_grad_() if with_quality else None
    return cls.requires_grad_(), quality, positives, targets, valid


def dense_sum(cls, quality, positives, targets, valid, beta):
    """The same by the element-wise loss and a dense label."""
    logits = cls if quality is None else joint_logits(cls, quality)
    labels = torch.zeros_like(logits)
    labels[positives] = targets
    return (quality_focal_loss(logits, labels, beta).sum(dim=-1) * valid).sum()


@pytest.mark.parametrize("with_quality", [False, True])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 2.5])
@pytest.mark.parametrize("piece", [1, 10, 2**18])
def test_sparse_qfl_is_the_dense_one(with_quality, beta, piece, monkeypatch):
    """Value and gradients, however the locations are cut into pieces (1, 2 or all at a time)."""
    monkeypatch.setattr(score_losses._SparseScoreLoss, "PIECE", piece)
    case = sparse_case(with_quality)
    inputs = [x for x in case[:2] if x is not None]
    ours = sparse_quality_focal_loss(*case, beta=beta)
    expected = dense_sum(*case, beta)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(expected, inputs)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)
        assert not a[2].any()  # exactly nothing from a location that is not valid
    with torch.no_grad():
        assert sparse_quality_focal_loss(*case, beta=beta) == ours


@pytest.mark.parametrize("with_quality", [False, True])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_sparse_qfl_gradcheck(with_quality, beta):
    cls, quality, *rest = sparse_case(with_quality)
    if with_quality:
        assert torch.autograd.gradcheck(
            lambda a, b: sparse_quality_focal_loss(a, b, *rest, beta=beta), (cls, quality)
        )
    else:
        assert torch.autograd.gradcheck(
            lambda a: sparse_quality_focal_loss(a, None, *rest, beta=beta), (cls,)
        )


def test_sparse_qfl_can_be_used_again():
    """With a scaled gradient, as a GradScaler gives it, and twice through a retained graph."""
    case = sparse_case(True)
    inputs = case[:2]
    loss = sparse_quality_focal_loss(*case)
    once = torch.autograd.grad(loss, inputs, retain_graph=True)
    scaled = torch.autograd.grad(1024 * loss, inputs, retain_graph=True)
    again = torch.autograd.grad(loss, inputs)
    for a, b, c in zip(once, scaled, again):
        assert torch.equal(1024 * a, b) and torch.equal(a, c)


@pytest.mark.parametrize("scale", [0.25, torch.tensor(0.25, dtype=torch.float64)])
def test_sparse_qfl_scaled(scale):
    case = sparse_case(True)
    one = sparse_quality_focal_loss(*case)
    scaled = sparse_quality_focal_loss(*case, scale=scale)
    torch.testing.assert_close(scaled, one / 4, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(scaled, case[:2]), torch.autograd.grad(one, case[:2])):
        torch.testing.assert_close(a, b / 4, rtol=1e-12, atol=0)


@pytest.mark.parametrize("with_quality", [False, True])
def test_sparse_qfl_of_huge_logits_is_not_negative(with_quality):
    """A diverging network: right, and so without loss, or wrong by 80 at least."""
    for logit, expected in ((100.0, 0.0), (-100.0, 80.0), (1e4, 0.0), (-1e4, 80.0)):
        quality = torch.tensor([[100.0]]) if with_quality else None
        loss = sparse_quality_focal_loss(
            torch.tensor([[logit]]),
            quality,
            (torch.tensor([0]), torch.tensor([0])),
            torch.tensor([1.0]),
            torch.tensor([True]),
        )
        assert loss.item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    generator = torch.Generator().manual_seed(0)
    cls = (4 * torch.randn(50, 3, generator=generator)).to(dtype).requires_grad_()
    quality = torch.randn(50, 1, generator=generator).to(dtype).requires_grad_()
    rest = (torch.tensor([3, 7]), torch.tensor([0, 2])), torch.tensor([0.3, 0.9])
    valid = torch.ones(50, dtype=torch.bool)
    loss = sparse_quality_focal_loss(cls, quality, *rest, valid)
    expected = sparse_quality_focal_loss(cls.double(), quality.double(), *rest, valid)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=0)
    loss.backward()
    assert cls.grad.dtype == dtype and cls.grad.isfinite().all() and quality.grad.isfinite().all()
    box = torch.tensor([[0.0, 0.0, 500.0, 500.0]], dtype=dtype)
    assert generalized_iou_loss(box, box).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("cls", "quality", "valid"), [((4, 3), None, (2, 2)), ((4, 3), (4,), (4,)), ((4,), None, (4,)),
                                  ((4, 3), (1, 1), (4,)), ((4, 3), None, (1,))]
)  # fmt: skip
def test_sparse_qfl_shapes(cls, quality, valid):
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"expected \(L, K\), \(L, 1\) or None, and \(L,\)"):
        sparse_quality_focal_loss(
            torch.zeros(cls),
            None if quality is None else torch.zeros(quality),
            (none, none),
            torch.zeros(0),
            torch.ones(valid, dtype=torch.bool),
        )


def test_sparse_qfl_gradients_are_nobody_elses():
    """What backward hands out is not changed by what is done with it."""
    cls, quality, *rest = sparse_case(True)
    loss = sparse_quality_focal_loss(cls, quality, *rest)
    loss.backward(retain_graph=True)
    first = cls.grad.clone(), quality.grad.clone()
    cls.grad.zero_()
    quality.grad.mul_(3)
    cls.grad = quality.grad = None
    loss.backward()
    assert torch.equal(cls.grad, first[0]) and torch.equal(quality.grad, first[1])


def test_sparse_qfl_with_one_input_detached():
    """A frozen quality predictor, or a frozen classifier."""
    cls, quality, *rest = sparse_case(True)
    both = torch.autograd.grad(sparse_quality_focal_loss(cls, quality, *rest), (cls, quality))
    (only_cls,) = torch.autograd.grad(sparse_quality_focal_loss(cls, quality.detach(), *rest), cls)
    (only_quality,) = torch.autograd.grad(
        sparse_quality_focal_loss(cls.detach(), quality, *rest), quality
    )
    assert torch.equal(only_cls, both[0]) and torch.equal(only_quality, both[1])


@pytest.mark.parametrize("logit", [0.0, 10.0, 20.0, 50.0, -50.0, 79.0])
def test_sparse_qfl_in_float32(logit):
    """Near the float64 value where 1 + e^a or 1 - p are rounded to 1 or 0."""
    values = {}
    for dtype in (torch.float32, torch.float64):
        cls = torch.tensor([[logit, -logit, logit / 2]], dtype=dtype, requires_grad=True)
        quality = torch.tensor([[logit]], dtype=dtype, requires_grad=True)
        loss = sparse_quality_focal_loss(
            cls,
            quality,
            (torch.tensor([0]), torch.tensor([1])),
            torch.tensor([0.5], dtype=dtype),
            torch.tensor([True]),
            beta=1.0,
        )
        values[dtype] = [loss, *torch.autograd.grad(loss, (cls, quality))]
    for a, b in zip(values[torch.float32], values[torch.float64]):
        assert a.isfinite().all()
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [1e4, -1e4, float("inf"), -float("inf")])
def test_sparse_qfl_of_logits_beyond_its_range(value):
    """Finite: the loss of +-80."""
    for logits in ([[value]], [[80.0 if value > 0 else -80.0]]):
        cls = torch.tensor(logits, requires_grad=True)
        quality = torch.tensor([[value]], requires_grad=True)
        nothing = torch.zeros(0, dtype=torch.long)
        loss = sparse_quality_focal_loss(
            cls, quality, (nothing, nothing), torch.zeros(0), torch.tensor([True])
        )
        grads = torch.autograd.grad(loss, (cls, quality))
        assert all(x.isfinite().all() for x in (loss, *grads))
        assert loss.item() == pytest.approx(80.0 if value > 0 else 0.0, abs=1e-4)


def test_sparse_qfl_does_not_hide_nan():
    nothing = torch.zeros(0, dtype=torch.long)
    loss = sparse_quality_focal_loss(
        torch.tensor([[0.0, float("nan")]]),
        None,
        (nothing, nothing),
        torch.zeros(0),
        torch.tensor([True]),
    )
    assert loss.isnan()


def test_sparse_qfl_checks_beta():
    with pytest.raises(ValueError, match=r"beta is 0\.5; expected 0 or at least 1"):
        sparse_quality_focal_loss(*sparse_case(False), beta=0.5)
