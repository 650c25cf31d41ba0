"""The parts of CenterNet: head, box readings, heat losses."""

import math

import pytest
import torch

from gfocal.modeling.centers import (
    CenterDistributions,
    CenterFocalLoss,
    CenterNetHead,
    CenterQualityFocalLoss,
    CenterSize,
    HeatInputs,
)
from gfocal.modeling.heatmaps import gaussian_focal_loss
from gfocal.modeling.representations import DiracDistance, GeneralDistribution

CELL = torch.tensor([[5, 7]])


def test_size_and_offset():
    """Cell (5, 7), size (4, 2), offset (.5, .25): centre (5.5, 7.25)."""
    channels = torch.tensor([[4.0, 2.0, 0.5, 0.25]])
    assert CenterSize().decode(channels, CELL).tolist() == [[3.5, 6.25, 7.5, 8.25]]


def test_losses_of_size_and_offset():
    """The true box (3, 6, 8, 9): size (5, 3), centre (5.5, 7.5), offset (.5, .5). L1 of the size is
    2, of the offset 1/4; halved, divided by 3 objects, and weighted."""
    channels = torch.tensor([[4.0, 2.0, 0.5, 0.25]])
    boxes, three = torch.tensor([[3.0, 6.0, 8.0, 9.0]]), torch.tensor(3.0)
    losses = CenterSize().losses(channels, CELL, boxes, three)
    assert losses["loss_wh"].item() == pytest.approx(0.1 * 2 / 2 / 3)
    assert losses["loss_offset"].item() == pytest.approx(0.25 / 2 / 3)
    losses = CenterSize(size_weight=1.0, offset_weight=0.5).losses(channels, CELL, boxes, three)
    assert losses["loss_wh"].item() == pytest.approx(1 / 3)
    assert losses["loss_offset"].item() == pytest.approx(0.125 / 2 / 3)


def test_mirrored_sizes():
    channels = torch.arange(8.0).view(1, 4, 1, 2)
    mirrored = 10 + channels
    merged = CenterSize().merged(channels, mirrored)
    assert merged.flatten().tolist() == [5, 6, 7, 8, 4, 5, 6, 7]


def one_hot(*bins):
    """Logits of a reading that is sure of these bins."""
    return torch.nn.functional.one_hot(torch.tensor(bins), 5).float().flatten()[None] * 200


def test_distributions():
    """Bins 0, 1, 2, 4, 8 from the middle (5.5, 7.5): left 2, top 0, right 8, bottom 1. Half of a
    mass at 2 and half at 4 is a distance of 3 with a standard deviation of 1."""
    box = CenterDistributions(representation=GeneralDistribution.geometric(4, first=1.0, last=8.0))
    assert box.representation.bins.tolist() == [0, 1, 2, 4, 8]
    assert box.branches == {"sides": 20}
    boxes = box.decode(one_hot(2, 0, 4, 1), CELL)
    assert boxes.tolist() == [[3.5, 7.5, 13.5, 8.5]]
    half = one_hot(2, 0, 4, 1)
    half[0, 3] = 200
    assert box.decode(half, CELL)[0, 0].item() == pytest.approx(2.5)
    assert box.representation.std(box.logits(half))[0].tolist() == pytest.approx([1, 0, 0, 0])


def test_losses_of_distributions():
    """All logits 0: 1/5 for each bin, and a distance of 3. The true distances are (2, 3, 6, 9), so
    L1 is 1 + 0 + 3 + 6. DFL of bins that are alike is ln 5 for any target, also for the last, which
    is beyond the bins and clipped to 3.9."""
    box = CenterDistributions(representation=GeneralDistribution.geometric(4, first=1.0, last=8.0))
    boxes = torch.tensor([[3.5, 4.5, 11.5, 16.5]])
    losses = box.losses(torch.zeros(1, 20), CELL, boxes, torch.tensor(2.0))
    assert losses["loss_sides"].item() == pytest.approx(0.1 * 10 / 2 / 2)
    assert losses["loss_dfl"].item() == pytest.approx(0.25 * math.log(5) / 2)
    # Right: 6 lies between the bins 3 (4 cells) and 4 (8 cells); left, top and bottom at bins.
    # (Sure of both, the logits have a loss of ln 2 at every target between.)
    sure = one_hot(2, 0, 3, 1)
    sure[0, 2 * 5 + 4] = 200
    boxes = torch.tensor([[3.5, 7.5, 11.5, 8.5]])
    losses = box.losses(sure, CELL, boxes, torch.tensor(1.0))
    assert losses["loss_sides"].item() == pytest.approx(0, abs=1e-6)
    assert losses["loss_dfl"].item() == pytest.approx(0.25 * math.log(2) / 4)


def test_mirrored_distributions():
    """What the mirrored image calls left is right."""
    box = CenterDistributions(representation=GeneralDistribution(2))
    sides = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]])
    mirrored = sides[[2, 1, 0, 3]]
    channels, mirrored = (x.view(1, 12, 1, 1) for x in (sides, mirrored))
    assert torch.equal(box.merged(channels, mirrored), channels)
    assert not torch.equal(box.merged(channels, channels), channels)


def test_a_representation_without_bins():
    with pytest.raises(TypeError, match="DiracDistance; expected a representation with bins"):
        CenterDistributions(representation=DiracDistance())


def heat_inputs(ious, valid=None):
    """One image and class, three cells: an object, its neighbour at 1/2, background. All logits
    are 0."""
    places = tuple(torch.tensor([0]) for _ in range(4))
    return HeatInputs(
        torch.zeros(1, 1, 1, 3),
        torch.tensor([1.0, 0.5, 0.0]).view(1, 1, 1, 3),
        places,
        torch.tensor(ious),
        valid,
    )


def test_focal_loss():
    """ln 2 / 4 at the object, 1/16 of it beside it, ln 2 / 4 elsewhere, where that counts."""
    quarter = math.log(2) / 4
    loss = CenterFocalLoss()
    assert loss(heat_inputs([0.3])).item() == pytest.approx(quarter * (1 + 1 / 16 + 1))
    valid = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    assert loss(heat_inputs([0.3], valid)).item() == pytest.approx(quarter * (1 + 1 / 16))


@pytest.mark.parametrize(("iou", "beta"), [(0.0, 2), (0.5, 2), (0.9, 2), (0.9, 1)])
def test_quality_focal_loss(iou, beta):
    """At the object |iou - 1/2|^beta ln 2; elsewhere the same."""
    loss = CenterQualityFocalLoss(qfl_beta=beta)
    expected = math.log(2) * (abs(iou - 0.5) ** beta + (1 / 16 + 1) / 4)
    assert loss(heat_inputs([iou])).item() == pytest.approx(expected)


def test_quality_focal_loss_is_smallest_at_the_iou():
    inputs = heat_inputs([0.7])
    logits = inputs.logits.clone()
    logits[..., 0] = math.log(0.7 / 0.3)
    logits.requires_grad_()
    (grad,) = torch.autograd.grad(CenterQualityFocalLoss()(inputs._replace(logits=logits)), logits)
    assert grad[0, 0, 0, 0].item() == pytest.approx(0, abs=1e-6) and grad[0, 0, 0, 2] > 0
    with pytest.raises(ValueError, match="beta is 0.5"):
        CenterQualityFocalLoss(qfl_beta=0.5)


def test_head():
    """A score of .1 at first, sizes near 0; a branch for each output of the reading."""
    torch.manual_seed(0)
    head = CenterNetHead(in_channels=4, num_classes=3, box=CenterSize(), conv_dim=6)
    outputs = head(torch.zeros(2, 4, 5, 7))
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {
        "heatmap": (2, 3, 5, 7),
        "wh": (2, 2, 5, 7),
        "offset": (2, 2, 5, 7),
    }
    assert head.branches["heatmap"][2].bias.sigmoid().tolist() == pytest.approx([0.1] * 3)
    assert outputs["wh"].abs().max() == 0
    heat = gaussian_focal_loss(outputs["heatmap"], torch.zeros(2, 3, 5, 7))
    assert heat.mean().item() == pytest.approx(0.01 * -math.log(0.9), rel=0.5)
