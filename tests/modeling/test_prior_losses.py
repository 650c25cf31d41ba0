import math

import pytest
import torch
from torch.nn import functional as F

from gfocal.modeling.losses import quality_focal_loss
from gfocal.modeling.prior_losses import (
    PriorLossInputs,
    SigmoidQualityFocalLoss,
    SoftmaxHardNegativeLoss,
)


def make_inputs(logits, labels, divisor=1.0, ious=None):
    """``labels`` (N, R): a class, -1 background, -2 ignored."""
    labels = torch.as_tensor(labels)
    fg_idxs = (labels >= 0).nonzero(as_tuple=True)
    fg_labels = labels[fg_idxs]
    return PriorLossInputs(
        cls_logits=logits,
        negatives=labels == -1,
        fg_idxs=fg_idxs,
        fg_labels=fg_labels,
        fg_ious=torch.ones(len(fg_labels)) if ious is None else torch.tensor(ious),
        num_positives=(labels >= 0).sum(dim=1),
        divisor=torch.tensor(divisor),
    )


def random_case():
    torch.manual_seed(0)
    labels = torch.full((3, 40), -1)
    labels[0, [3, 7]] = torch.tensor([1, 0])
    labels[1, 5:20] = 2  # more than a quarter: all negatives count
    labels[:, 30:33] = -2
    return torch.randn(3, 40, 4, dtype=torch.float64, requires_grad=True), labels


def test_softmax_by_hand():
    """One class. Logits (a, 0) have the cross entropies log(1 + e^-a) as the class and
    log(1 + e^a) as background."""
    logits = torch.tensor(
        [[[math.log(3), 0], [0, 0], [math.log(7), 0], [-9.0, 0], [math.log(2), 0]]]
    )
    inputs = make_inputs(logits, [[0, -1, -1, -1, -1]], divisor=2.0)
    # positive log(4/3); the three hardest negatives log(8), log(3), log(2)
    loss = SoftmaxHardNegativeLoss(weight=10.0)(inputs)
    assert loss.item() == pytest.approx(5 * math.log(4 / 3 * 8 * 3 * 2))


def test_softmax_as_it_is_published():
    """Image after image: all losses, sorted."""
    logits, labels = random_case()
    expected = 0
    for image_logits, image_labels in zip(logits, labels):
        positive = image_labels >= 0
        background = F.cross_entropy(image_logits, torch.full((40,), 3), reduction="none")[
            image_labels == -1
        ]
        hardest = background.sort(descending=True).values[: 3 * int(positive.sum())]
        expected = expected + hardest.sum()
        expected = expected + F.cross_entropy(
            image_logits[positive], image_labels[positive], reduction="sum"
        )
    loss = SoftmaxHardNegativeLoss()(make_inputs(logits, labels, 17.0))
    torch.testing.assert_close(loss, expected / 17)
    found, wanted = (torch.autograd.grad(x, logits)[0] for x in (loss, expected / 17))
    torch.testing.assert_close(found, wanted)
    assert found[2].abs().sum() == 0  # an image without positives has no loss
    assert found[:, 30:33].abs().sum() == 0  # what is ignored neither
    assert (found[1] != 0).any(dim=1).sum() == 37


def test_softmax_in_pieces(monkeypatch):
    inputs = make_inputs(*random_case())
    whole = SoftmaxHardNegativeLoss()(inputs)
    monkeypatch.setattr(SoftmaxHardNegativeLoss, "PIECE", 13)
    assert SoftmaxHardNegativeLoss()(inputs) == whole


def test_qfl_is_that_of_all_priors():
    logits, labels = random_case()
    logits = logits[..., :3]
    ious = torch.linspace(0.1, 0.9, 17).tolist()
    inputs = make_inputs(logits, labels, 5.0, ious)
    targets = torch.zeros_like(logits)
    targets[(*inputs.fg_idxs, inputs.fg_labels)] = torch.tensor(ious).double()
    expected = quality_focal_loss(logits, targets)[labels > -2].sum() / 5
    loss = SigmoidQualityFocalLoss()(inputs)
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(found, wanted)
    assert found[2].abs().sum() > 0  # nothing is mined


def test_scores():
    logits = torch.tensor([[math.log(2), math.log(5), 0.0]])
    torch.testing.assert_close(
        SoftmaxHardNegativeLoss().scores(logits), torch.tensor([[2 / 8, 5 / 8]])
    )
    torch.testing.assert_close(
        SigmoidQualityFocalLoss().scores(logits), torch.tensor([[2 / 3, 5 / 6, 1 / 2]])
    )
    assert SoftmaxHardNegativeLoss().scores(logits.half()).dtype == torch.float32


def test_channels_and_start():
    assert SoftmaxHardNegativeLoss().num_channels(5) == 6
    assert SigmoidQualityFocalLoss().num_channels(5) == 5
    conv = torch.nn.Conv2d(64, 6, 3)
    SoftmaxHardNegativeLoss().initialize(conv)
    assert not conv.bias.any() and conv.weight.std() > 0.04
    SigmoidQualityFocalLoss(prior_prob=0.02).initialize(conv)
    assert conv.bias.sigmoid().tolist() == pytest.approx([0.02] * 6)
    assert 0.008 < conv.weight.std() < 0.012


@pytest.mark.parametrize("loss", [SoftmaxHardNegativeLoss(), SigmoidQualityFocalLoss()])
def test_without_positives(loss):
    logits = torch.randn(2, 5, 4, requires_grad=True)
    value = loss(make_inputs(logits, torch.full((2, 5), -1)))
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftmaxHardNegativeLoss(negative_ratio=-1), "negative_ratio is -1"),
        (lambda: SigmoidQualityFocalLoss(prior_prob=1.0), r"prior_prob is 1\.0"),
        (lambda: SigmoidQualityFocalLoss(beta=0.5), r"beta is 0\.5"),
    ],
)
def test_wrong_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
