"""The head: shapes, order of the flattened locations, initial scores, per-level scales."""

import pytest
import torch

from gfocal.modeling.head import GFLHead
from gfocal.modeling.quality import DistributionGuidedQualityPredictor, NoQuality
from gfocal.modeling.representations import GeneralDistribution


def make_head(**kwargs):
    defaults = {
        "in_channels": 8,
        "num_levels": 2,
        "num_classes": 3,
        "conv_dims": [16, 32],
        "box_representation": GeneralDistribution(reg_max=5),
        "quality_predictor": DistributionGuidedQualityPredictor(),
        "norm": "",
    }
    return GFLHead(**{**defaults, **kwargs})


def test_shapes():
    features = [torch.randn(2, 8, 4, 6), torch.randn(2, 8, 2, 3)]
    predictions = make_head()(features)
    assert predictions.cls_logits.shape == (2, 30, 3)
    assert predictions.box_logits.shape == (2, 30, 4, 6)
    assert predictions.quality_logits.shape == (2, 30, 1)
    assert make_head(quality_predictor=NoQuality())(features).quality_logits is None


def test_locations_are_level_by_level_and_rows_first():
    """A feature that is 0 but at one place moves the predictions of its 5x5 surroundings only (two
    3x3 convolutions of a one-layer tower and the output)."""
    head = make_head(conv_dims=[16])
    nothing = [torch.zeros(1, 8, 7, 9), torch.zeros(1, 8, 3, 4)]
    spot = [torch.zeros(1, 8, 7, 9), torch.zeros(1, 8, 3, 4)]
    spot[0][:, :, 2, 6] = 100.0
    with torch.no_grad():
        changed = (head(spot).cls_logits - head(nothing).cls_logits).abs().sum(dim=-1)[0]
    level = changed[:63].view(7, 9) > 0
    expected = torch.zeros(7, 9, dtype=torch.bool)
    expected[0:5, 4:9] = True
    assert torch.equal(level, expected)
    assert (changed[63:] == 0).all()


def test_box_channels_are_side_major():
    """Channel c * ... of the output convolution is bin c % C of side c // C."""
    head = make_head()
    with torch.no_grad():
        head.box_logits.weight.zero_()
        head.box_logits.bias.copy_(torch.arange(24.0))
        logits = head([torch.randn(1, 8, 2, 2), torch.randn(1, 8, 1, 1)]).box_logits
    assert (logits == torch.arange(24.0).view(4, 6)).all()


def test_each_level_has_its_scale():
    head = make_head()
    with torch.no_grad():
        features = [torch.randn(1, 8, 2, 2)] * 2
        head.scales[1].fill_(3.0)
        first, second = head(features).box_logits.split(4, dim=1)
    torch.testing.assert_close(second, 3.0 * first)


def test_untrained_scores_are_the_prior():
    head = make_head(prior_prob=0.02)
    scores = head([torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 2, 2)]).cls_logits.sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, 0.02))


def test_predictions_are_at_least_float32():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = make_head()([torch.randn(1, 8, 4, 4), torch.randn(1, 8, 2, 2)])
    assert predictions.cls_logits.dtype == torch.float32
    assert predictions.box_logits.dtype == torch.float32
    features = [torch.randn(1, 8, 4, 4).double(), torch.randn(1, 8, 2, 2).double()]
    assert make_head().double()(features).box_logits.dtype == torch.float64


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_levels": 0}, "num_levels 0"),
        ({"conv_dims": []}, "conv_dims is empty"),
        ({"prior_prob": 1.0}, "prior_prob is 1.0"),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_head(**kwargs)


def test_wrong_number_of_levels():
    with pytest.raises(ValueError, match="got 1 feature maps; this head has 2 levels"):
        make_head()([torch.zeros(1, 8, 2, 2)])
