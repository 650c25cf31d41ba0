"""Ideas of later papers and other uses, each from outside of the package and in a few lines."""

import io
import math
import tokenize
from pathlib import Path

import pytest
import torch
from detectron2.structures import Boxes

from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.quality import DistributionGuidedQualityPredictor, NoQuality
from gfocal.modeling.representations import GeneralDistribution
from gfocal.modeling.structures import DenseAnchors, DensePredictions, DenseTargets, GroundTruth
from gfocal.modeling.terms import DistributionFocalLoss, GIoULoss, QualityFocalLoss
from tests.helpers.tiny import make_gfl, make_head, make_input

from .complete_iou import CompleteIoULoss
from .decoupled import DecoupledHead
from .one_to_one import OneToOneMatcher
from .softplus import SoftplusDistance

BOX = [3.0, 2.0, 63.0, 58.0]
LIMITS = {"complete_iou": 15, "one_to_one": 25, "softplus": 20, "decoupled": 25, "fcos": 60}


def code_lines(path):
    """Lines with code on them: no docstrings, comments, empty lines."""
    source, lines = path.read_text(), set()
    previous = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        layout = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        docstring = token.type == tokenize.STRING and previous in (*layout, tokenize.COMMENT)
        if token.type not in (*layout, tokenize.COMMENT, tokenize.ENDMARKER) and not docstring:
            lines |= set(range(token.start[0], token.end[0] + 1))
        previous = token.type
    return len(lines)


@pytest.mark.parametrize("name", LIMITS)
def test_it_is_short(name):
    assert 5 < code_lines(Path(__file__).with_name(f"{name}.py")) <= LIMITS[name]


def train(model, steps=3):
    """A few steps, and an inference."""
    batch = [make_input(64, 96, [BOX, [60.0, 5, 90, 60]]), make_input(80, 48)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        losses = model(batch)
        sum(losses.values()).backward()
        optimizer.step()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        assert len(model.eval()(batch)) == 2


def criterion_of(**terms):
    defaults = {
        "cls_loss": QualityFocalLoss(),
        "box_loss": GIoULoss(),
        "dist_loss": DistributionFocalLoss(),
    }
    return GFLCriterion(**{**defaults, **terms})


def test_complete_iou_loss():
    """A location predicts [0, 0, 16, 16], its box is [4, 0, 16, 16]: IoU 3/4; the centres are 2 px
    apart, and the diagonal around both has 512 px^2; sides of 12 and 16 px against 16 and 16."""
    anchors = DenseAnchors(
        torch.tensor([[0.0, 0, 16, 16], [8, 0, 24, 16]]), torch.tensor([8.0, 8.0]), [(1, 2)]
    )
    predictions = DensePredictions(
        torch.zeros(1, 2, 1), torch.zeros(1, 2, 4, 3), None, GeneralDistribution(reg_max=2)
    )
    targets = DenseTargets(torch.tensor([[0, 1]]), torch.tensor([[[4.0, 0, 16, 16], [0, 0, 0, 0]]]))
    losses = criterion_of(box_loss=CompleteIoULoss())(anchors, predictions, targets)
    v = 4 / math.pi**2 * (math.atan(12 / 16) - math.atan(1)) ** 2
    expected = 1 / 4 + 2**2 / 512 + v * v / (1 / 4 + v)
    assert losses["loss_box_reg"].item() == pytest.approx(2 * expected)
    train(make_gfl(criterion=criterion_of(box_loss=CompleteIoULoss())))


def test_one_to_one_matcher():
    """By hand: two boxes and three locations. Which location a box gets depends on what is left for
    the other."""
    middles = torch.tensor([8.0, 16, 24])
    anchors = DenseAnchors(
        torch.stack([middles - 4, middles * 0 + 4, middles + 4, middles * 0 + 12], dim=1),
        torch.full((3,), 8.0),
        [(1, 3)],
    )
    # What is said: x from 4 to 16, 4 to 28, and 4 to 36, of 16 rows.
    distances = torch.tensor([[4.0, 8, 8, 8], [12, 8, 12, 8], [20, 8, 12, 8]]) / 8
    predictions = DensePredictions(
        torch.zeros(1, 3, 1), distances[None, ..., None], None, lambda x: x[..., 0]
    )
    boxes = Boxes(torch.tensor([[4.0, 0, 20, 16], [4, 0, 28, 16]]))
    truth = GroundTruth([boxes], [torch.tensor([0, 0])])
    # IoUs from x = 8, 16, 24: 12/16, 16/24, - (outside); and 12/24, 24/24, 24/32
    assert OneToOneMatcher()(anchors, truth, predictions).idxs.tolist() == [[0, 1, -1]]
    # With less from x = 8, the first box has x = 16: 16/24 + 24/32 is more than 4/16 + 1.
    predictions.box_logits[0, 0, 2] = 0.0
    assert OneToOneMatcher()(anchors, truth, predictions).idxs.tolist() == [[-1, 0, 1]]
    train(make_gfl(matcher=OneToOneMatcher()))


def test_softplus_distance():
    """ln(1 + e^0) = ln 2, and a large channel is its own distance."""
    channels = torch.tensor([0.0, 50.0, -50.0, 0.0])[:, None]
    distances = SoftplusDistance()(channels).tolist()
    assert distances == pytest.approx([math.log(2), 50.0, 0.0, math.log(2)])
    head = make_head(box_representation=SoftplusDistance(), quality_predictor=NoQuality())
    train(make_gfl(head=head, criterion=criterion_of(dist_loss=None)))


def test_decoupled_levels():
    """With the weights of a shared head on both levels it answers as that does."""
    shared = make_head()
    head = DecoupledHead(
        num_levels=2,
        quality_predictor=DistributionGuidedQualityPredictor(),
        box_representation=GeneralDistribution(),
        in_channels=8,
        num_classes=3,
        conv_dims=[8],
        norm="",
    )
    for level in head.levels:
        level.load_state_dict(shared.state_dict(), strict=False)
    features = [torch.randn(2, 8, 6, 5), torch.randn(2, 8, 3, 3)]
    for a, b in zip(head(features).tensors, shared(features).tensors):
        torch.testing.assert_close(a, b)
    train(make_gfl(head=head))
