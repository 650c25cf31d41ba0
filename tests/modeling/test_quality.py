"""Joint scores, measures of quality, and DGQP."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfocal.modeling.numerics import joint_logits
from gfocal.modeling.quality import DistributionGuidedQualityPredictor, NoQuality, QualityBranch


@settings(max_examples=50, deadline=None)
@given(a=st.floats(-30, 30), b=st.floats(-30, 30))
def test_joint_logit_is_the_logit_of_the_product(a, b):
    a, b = (torch.tensor([x], dtype=torch.float64) for x in (a, b))
    joint = joint_logits(a, b)
    torch.testing.assert_close(joint.sigmoid(), a.sigmoid() * b.sigmoid(), rtol=1e-12, atol=0)
    # against the definition, summed in the open: 1/p - 1 = e^-a + e^-b + e^(-a-b)
    torch.testing.assert_close(joint, -torch.log((-a).exp() + (-b).exp() + (-a - b).exp()))


def test_joint_logits_broadcast_and_keep_fp32():
    cls, quality = torch.randn(2, 5, 3), torch.randn(2, 5, 1)
    joint = joint_logits(cls, quality)
    assert joint.shape == (2, 5, 3)
    torch.testing.assert_close(joint.sigmoid(), cls.sigmoid() * quality.sigmoid())
    half = joint_logits(cls.bfloat16(), quality.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, joint_logits(cls.bfloat16().float(), quality.bfloat16()))


@pytest.mark.parametrize("a", [-1e4, -50.0, 0.0, 50.0, 1e4])
@pytest.mark.parametrize("b", [-1e4, -50.0, 0.0, 50.0, 1e4])
def test_joint_logits_of_extremes(a, b):
    cls = torch.tensor([a], requires_grad=True)
    quality = torch.tensor([b], requires_grad=True)
    joint = joint_logits(cls, quality)
    joint.sum().backward()
    assert joint.isfinite().all()
    # d joint / d a = (1 - sigmoid(a)) / (1 - sigmoid(joint)), and likewise for b
    assert 0 <= cls.grad.item() <= 1 and 0 <= quality.grad.item() <= 1
    torch.testing.assert_close(joint.sigmoid(), cls.sigmoid() * quality.sigmoid())


def test_no_quality():
    assert NoQuality()(torch.zeros(1, 8, 2, 2), torch.zeros(1, 4, 4, 17)) is None


def test_dgqp_sees_only_the_shape_of_the_distributions():
    """Its statistics are sorted probabilities: neither where the mass lies nor a shift of all
    logits may change the quality (GFLV2 Sec. 3.2)."""
    predictor = DistributionGuidedQualityPredictor()
    torch.nn.init.normal_(predictor.fc1.weight)
    torch.nn.init.normal_(predictor.fc2.weight)
    logits = torch.randn(2, 6, 4, 17)
    quality = predictor(torch.zeros(2, 8, 2, 3), logits)
    assert quality.shape == (2, 6, 1)
    torch.testing.assert_close(predictor(None, logits + 5.0), quality)
    torch.testing.assert_close(predictor(None, logits[..., torch.randperm(17)]), quality)
    swapped = predictor(None, logits[:, :, [1, 0, 2, 3]])
    assert not torch.allclose(swapped, quality)


def test_dgqp_by_hand():
    # topk 1 with the mean: statistics are the largest probability, twice a side. First layer: sum
    # of all eight; second: times 3 plus 1. Uniform over 4 bins: 8 * 1/4 = 2, so the quality is 7.
    predictor = DistributionGuidedQualityPredictor(topk=1, add_mean=True, hidden_dim=1)
    torch.nn.init.ones_(predictor.fc1.weight)
    torch.nn.init.zeros_(predictor.fc1.bias)
    torch.nn.init.constant_(predictor.fc2.weight, 3.0)
    torch.nn.init.ones_(predictor.fc2.bias)
    assert predictor(None, torch.zeros(1, 1, 4, 4)).item() == pytest.approx(7.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dgqp_in_another_precision(dtype):
    predictor = DistributionGuidedQualityPredictor().to(dtype)
    logits = torch.randn(1, 6, 4, 17)  # what a head of any precision hands over
    assert predictor(None, logits).isfinite().all()


def test_dgqp_statistics():
    # Two bins with 3/4 and 1/4: mean 1/2, variance 1/16; the first layer sums over four sides.
    logits = torch.tensor([0.75, 0.25]).log().expand(1, 1, 4, 2)
    for asked, expected in (("topk", 4.0), ("mean", 2.0), ("var", 0.25)):
        flags = {f"add_{name}": name == asked for name in ("topk", "mean", "var")}
        predictor = DistributionGuidedQualityPredictor(topk=2, hidden_dim=1, **flags)
        torch.nn.init.ones_(predictor.fc1.weight)
        torch.nn.init.zeros_(predictor.fc1.bias)
        torch.nn.init.ones_(predictor.fc2.weight)
        torch.nn.init.zeros_(predictor.fc2.bias)
        assert predictor(None, logits).item() == pytest.approx(expected)


def test_dgqp_size():
    # 20 statistics -> 64 -> 1: 20 * 64 + 64 + 64 + 1 numbers
    assert sum(p.numel() for p in DistributionGuidedQualityPredictor().parameters()) == 1409
    without_mean = DistributionGuidedQualityPredictor(topk=3, add_mean=False, hidden_dim=8)
    assert without_mean.fc1.in_features == 12


def test_quality_branch_sees_its_own_surroundings():
    branch = QualityBranch(in_channels=2)
    torch.nn.init.ones_(branch.conv.weight)
    features = torch.zeros(1, 2, 3, 4)
    features[0, :, 0, 0] = 1.0  # both channels: 2 wherever the 3x3 window reaches it
    quality = branch(features, torch.zeros(1, 12, 4, 17))
    assert quality.shape == (1, 12, 1)
    assert quality.view(3, 4).tolist() == [[2, 2, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0]]


def test_errors():
    with pytest.raises(ValueError, match="topk is 0"):
        DistributionGuidedQualityPredictor(topk=0)
    with pytest.raises(ValueError, match="add_topk, add_mean and add_var are all False"):
        DistributionGuidedQualityPredictor(add_topk=False, add_mean=False)
    with pytest.raises(ValueError, match="topk is 4 but a side has 1 channels"):
        DistributionGuidedQualityPredictor()(None, torch.zeros(1, 2, 4, 1))
