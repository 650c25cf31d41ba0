"""Distances, boxes and distributions of distances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfocal.modeling.boxes import aligned_iou, boxes_to_distances, distances_to_boxes
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.representations import DiracDistance, GaussianDistance, GeneralDistribution
from gfocal.modeling.structures import DenseAnchors, DensePredictions, DenseTargets
from gfocal.modeling.terms import DistributionFocalLoss, FocalLoss, GIoULoss


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 1.0, 1e3]))
def test_distances_and_boxes_are_inverses(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(10, 2, generator=generator, dtype=torch.float64) * scale
    boxes = torch.randn(10, 4, generator=generator, dtype=torch.float64) * scale
    torch.testing.assert_close(
        distances_to_boxes(centers, boxes_to_distances(centers, boxes)), boxes
    )
    torch.testing.assert_close(
        boxes_to_distances(centers, distances_to_boxes(centers, boxes)), boxes
    )


def test_sides_by_hand():
    # From (10, 20): left 1, top 2, right 3, bottom 4 is the box [9, 18, 13, 24].
    box = distances_to_boxes(torch.tensor([10.0, 20.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert box.tolist() == [9.0, 18.0, 13.0, 24.0]


def test_iou_by_hand():
    # [0,0,2,2] and [1,0,3,2] share 1 x 2 of 4 + 4 - 2
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    b = torch.tensor([[1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0], [0.0, 0.0, 1.0, 1.0]])
    assert aligned_iou(a, b).tolist() == pytest.approx([2 / 6, 0.0, 1.0])
    empty = torch.zeros(1, 4)
    assert aligned_iou(empty, empty).tolist() == [0.0]


def test_dirac_and_gaussian_by_hand():
    logs = torch.log(torch.tensor([0.5, 1.0, 2.0, 4.0]))
    torch.testing.assert_close(DiracDistance()(logs[:, None]), logs.exp())
    channels = torch.stack([logs, torch.full((4,), math.log(0.3))], dim=-1)
    gaussian = GaussianDistance()
    torch.testing.assert_close(gaussian(channels), logs.exp())
    torch.testing.assert_close(gaussian.std(channels), torch.full((4,), 0.3))
    assert DiracDistance()(torch.tensor([[1e4], [-1e4], [0.0], [0.0]])).isfinite().all()


def test_expectation_and_std_by_hand():
    representation = GeneralDistribution(reg_max=2, bin_width=0.5)
    assert representation.num_channels == 3
    assert representation.bins.tolist() == [0.0, 0.5, 1.0]
    # P = (1/2, 1/4, 1/4): expectation 0.375; variance 0.5 * 0 + (0.25 + 1) / 4 - 0.375^2
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25])).expand(1, 4, 3)
    assert representation(logits).tolist() == [[pytest.approx(0.375)] * 4]
    std = math.sqrt((0.25 + 1) / 4 - 0.375**2)
    assert representation.std(logits).tolist() == [[pytest.approx(std)] * 4]
    assert representation.probabilities(logits)[0, 0].tolist() == pytest.approx([0.5, 0.25, 0.25])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [0.5, 1.0, 4.0])
def test_bins_of_equal_width_count_widths(width, dtype):
    """To the bit, beyond the bins too: DFL's targets are what they were before other bins came."""
    representation = GeneralDistribution(reg_max=16, bin_width=width).to(dtype)
    distances = torch.cat([torch.randn(1000) * 20, torch.arange(-20.0, 40.0)]).to(dtype)
    assert torch.equal(representation.to_bins(distances), distances / width)


SQUARES = [0, 1, 4, 9, 16]


def test_other_bins_by_hand():
    # 2.5 lies halfway from 1 to 4: 1.5; 16 is bin 4; 23 is 7 beyond it, the last bin is 7 wide: 5.
    representation = GeneralDistribution(bins=SQUARES)
    coordinates = representation.to_bins(torch.tensor([0.0, 1.0, 2.5, 9.0, 16.0, 23.0, -1.0]))
    assert coordinates.tolist() == [0.0, 1.0, 1.5, 3.0, 4.0, 5.0, -1.0]
    assert (representation.reg_max, representation.num_channels) == (4, 5)
    # half of the mass at 1 and half at 9: 5, and 4 from it
    logits = torch.tensor([-100.0, 0.0, -100.0, 0.0, -100.0]).expand(4, 5)
    assert representation(logits).tolist() == pytest.approx([5.0] * 4)
    assert representation.std(logits).tolist() == pytest.approx([4.0] * 4)


def test_constructors_of_bins_by_hand():
    make = GeneralDistribution
    assert make().bins.tolist() == list(range(17)) == make.uniform().bins.tolist()
    assert make.uniform(4, 0.5).bins.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    # 0, and four points from 1 to 27, each three times the one before
    assert make.geometric(4, 1.0, 27.0).bins.tolist() == pytest.approx([0, 1, 3, 9, 27])
    assert make.signed(-2, 17).bins.tolist() == list(range(-2, 18))
    assert make.signed(-0.3, 0.3, 0.1).bins.tolist() == pytest.approx(
        [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3], abs=1e-7
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeneralDistribution(bins=[1.0]), r"bins are \[1.0\]; expected at least two"),
        (lambda: GeneralDistribution(bins=[0, 2, 2]), r"bins are \[0.0, 2.0, 2.0\]; .* increase"),
        (lambda: GeneralDistribution(bins=[0, math.inf]), "finite numbers"),
        (lambda: GeneralDistribution(bins=[0, math.nan]), "finite numbers"),
        (lambda: GeneralDistribution(16, bins=[0, 1]), "got bins, and also reg_max 16"),
        (lambda: GeneralDistribution(bin_width=2.0, bins=[0, 1]), "bin_width 2.0; expected bins"),
        (lambda: GeneralDistribution.geometric(1), "reg_max 1, first .* integer of at least 2"),
        (lambda: GeneralDistribution.geometric(4, 0.0, 8.0), "0 < first < last"),
        (lambda: GeneralDistribution.geometric(4, 8.0, 8.0), "0 < first < last"),
        (lambda: GeneralDistribution.signed(-2, 17, 0.0), "width 0.0; expected a positive width"),
        (lambda: GeneralDistribution.signed(2, -2), "that divides the range"),
        (lambda: GeneralDistribution.signed(-2, 17.5), "that divides the range"),
        (lambda: GeneralDistribution.signed(0, math.inf), "the range, which is finite"),
    ],
)
def test_bins_that_are_none(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("bins", [SQUARES, [-2.0, -0.5, 0.25, 3.0, 50.0]])
def test_dfl_of_other_bins_is_smallest_at_the_target(bins):
    """Of the distributions on the two bins around a target, that one whose expectation it is: the
    definition (W_{i+1} - y, y - W_i) / (W_{i+1} - W_i), written out."""
    representation = GeneralDistribution(bins=bins).double()
    targets = torch.tensor([bins[0], bins[1] + 0.1, bins[2], 0.9 * bins[4]], dtype=torch.float64)
    logits = torch.randn(4, 5, dtype=torch.float64)
    inputs = loss_inputs(representation, logits, targets)
    expected = []
    for y, row in zip(targets.tolist(), logits.log_softmax(dim=-1).tolist()):
        i = max(k for k in range(4) if bins[k] <= y)
        width = bins[i + 1] - bins[i]
        expected.append(-(bins[i + 1] - y) / width * row[i] - (y - bins[i]) / width * row[i + 1])
    loss = DistributionFocalLoss(weight=1.0)(inputs)
    assert loss.item() == pytest.approx(sum(expected) / 4, rel=1e-12)
    probs = torch.zeros(4, 5, dtype=torch.float64)
    for probs_of_side, y in zip(probs, targets.tolist()):
        i = max(k for k in range(4) if bins[k] <= y)
        probs_of_side[i + 1] = (y - bins[i]) / (bins[i + 1] - bins[i])
        probs_of_side[i] = 1 - probs_of_side[i + 1]
    best = probs.clamp(min=1e-30).log().requires_grad_()
    torch.testing.assert_close(representation(best.detach()), targets)
    DistributionFocalLoss(weight=1.0)(loss_inputs(representation, best, targets)).backward()
    assert best.grad.abs().max() < 1e-12


def loss_inputs(representation, logits, distances):
    """One foreground location at the origin, stride 1, whose sides have these logits (4, C) and
    true distances (4,)."""
    anchors = DenseAnchors(torch.zeros(1, 4).double(), torch.ones(1).double(), [(1, 1)])
    cls_logits = torch.zeros(1, 1, 1, dtype=torch.float64)
    predictions = DensePredictions(cls_logits, logits[None, None], None, representation)
    boxes = anchors.decode(distances[None])[None]
    targets = DenseTargets(torch.zeros(1, 1, dtype=torch.int64), boxes)
    criterion = GFLCriterion(cls_loss=FocalLoss(), box_loss=GIoULoss())
    return criterion.loss_inputs(anchors, predictions, targets)


def test_weights_are_not_read_with_other_bins():
    """Other bins are in the state dict; those of the paper are not, as in every published file."""
    geometric, signed = GeneralDistribution.geometric(), GeneralDistribution.signed(-2, 14)
    published = GeneralDistribution()
    assert not published.state_dict() and list(geometric.state_dict()) == ["bins"]
    GeneralDistribution.geometric().load_state_dict(geometric.state_dict())
    for theirs, ours in ((geometric, signed), (geometric, published)):
        before = ours.bins.clone()
        with pytest.raises(
            RuntimeError, match=r"bins: \[.*64\] in the file, \[.*1[46]\] in the mod"
        ):
            ours.load_state_dict(theirs.state_dict(), strict=False)
        assert torch.equal(ours.bins, before)
    with pytest.raises(RuntimeError, match="Missing key.*bins"):
        geometric.load_state_dict(published.state_dict())


def test_other_bins_on_the_meta_device():
    with torch.device("meta"):
        assert GeneralDistribution.geometric().bins.is_meta


def test_whole_numbers_are_distances_too():
    coordinates = GeneralDistribution(bin_width=0.5).to_bins(torch.tensor([1, 2]))
    assert coordinates.tolist() == [2.0, 4.0]


def test_dfl_leads_other_bins_to_the_target():
    """All that reads the bins reads the same ones: where DFL is least, the expectation is the
    target. (Bins of its own in ``forward`` alone would be trained towards 2.5 bins, 6.5 strides.)
    """
    representation = GeneralDistribution(bins=SQUARES)
    anchors = DenseAnchors(torch.tensor([[0.0, 0.0, 0.0, 0.0]]), torch.tensor([1.0]), [(1, 1)])
    targets = DenseTargets(torch.tensor([[0]]), torch.tensor([[[-2.5, -2.5, 2.5, 2.5]]]))
    logits = torch.zeros(1, 1, 4, 5, requires_grad=True)
    predictions = DensePredictions(torch.zeros(1, 1, 1), logits, None, representation)
    criterion = GFLCriterion(
        cls_loss=FocalLoss(), box_loss=GIoULoss(weight=0.0), dist_loss=DistributionFocalLoss()
    )
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        criterion(anchors, predictions, targets)["loss_dfl"].backward()
        optimizer.step()
    torch.testing.assert_close(
        representation(logits)[0, 0], torch.full((4,), 2.5), rtol=0, atol=0.02
    )


def test_sharp_distribution_is_its_bin():
    logits = torch.zeros(4, 17)
    logits[range(4), [0, 3, 8, 16]] = 1e4
    representation = GeneralDistribution()
    assert representation(logits).tolist() == [0.0, 3.0, 8.0, 16.0]
    assert representation.std(logits).tolist() == [0.0] * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_in_float32(dtype):
    logits = (torch.randn(5, 4, 17) * 5).to(dtype)
    representation = GeneralDistribution()
    assert representation(logits).dtype == torch.float32
    torch.testing.assert_close(representation(logits), representation(logits.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(representation(logits), representation(logits.float()))


def test_constant_is_not_in_the_state_dict():
    assert list(GeneralDistribution().state_dict()) == []
    assert GeneralDistribution().double().bins.dtype == torch.float64


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"reg_max": 0}, "reg_max is 0"),
        ({"reg_max": 7.5}, "reg_max is 7.5"),
        ({"bin_width": 0.0}, "bin_width is 0.0"),
        ({"bin_width": math.inf}, "bin_width is inf"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GeneralDistribution(**kwargs)
