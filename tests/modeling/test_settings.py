"""Numbers of parts that make no sense are refused where the part is made."""

import pytest

from gfocal.modeling.centers import (
    CenterDistributions,
    CenterFocalLoss,
    CenterNetHead,
    CenterQualityFocalLoss,
    CenterSize,
)
from gfocal.modeling.corner_head import CornerHead
from gfocal.modeling.corner_losses import CornerCriterion
from gfocal.modeling.prior_losses import SigmoidQualityFocalLoss, SoftmaxHardNegativeLoss
from gfocal.modeling.quality import localization_iou
from gfocal.modeling.representations import GeneralDistribution
from gfocal.modeling.terms import (
    DistributionFocalLoss,
    FocalLoss,
    GaussianNLLLoss,
    GIoULoss,
    LogSmoothL1Loss,
    QualityBranchLoss,
    QualityFocalLoss,
)


def center_head(**kwargs):
    return CenterNetHead(**{"in_channels": 8, "num_classes": 3, "box": CenterSize(), **kwargs})


def corner_head(**kwargs):
    return CornerHead(**{"in_channels": 8, "num_classes": 3, "num_stacks": 1, **kwargs})


def center_distributions(**kwargs):
    return CenterDistributions(representation=GeneralDistribution.geometric(), **kwargs)


@pytest.mark.parametrize(
    ("make", "name", "value", "expected"),
    [
        *[
            (term, "weight", -1.0, "at least 0")
            for term in (
                QualityFocalLoss, FocalLoss, GIoULoss, DistributionFocalLoss, GaussianNLLLoss,
                LogSmoothL1Loss, SoftmaxHardNegativeLoss, SigmoidQualityFocalLoss,
            )
        ],
        (QualityFocalLoss, "weight", float("nan"), "at least 0"),
        (FocalLoss, "alpha", -0.4, r"in \[0, 1\]"),
        (FocalLoss, "gamma", -1.5, "at least 0"),
        (LogSmoothL1Loss, "beta", -1.0, "at least 0"),
        (SoftmaxHardNegativeLoss, "negative_ratio", -1, "at least 0"),
        (SigmoidQualityFocalLoss, "prior_prob", 1.0, "strictly between 0 and 1"),
        (CenterSize, "size_weight", -1.0, "at least 0"),
        (CenterSize, "offset_weight", "1", "at least 0"),
        (center_distributions, "size_weight", -1.0, "at least 0"),
        (center_distributions, "dfl_weight", -1.0, "at least 0"),
        (CenterFocalLoss, "alpha", -2.0, "at least 0"),
        (CenterFocalLoss, "beta", -4.0, "at least 0"),
        (CenterQualityFocalLoss, "beta", -4.0, "at least 0"),
        (center_head, "prior_prob", 2.0, "strictly between 0 and 1"),
        (center_head, "conv_dim", 0, "an integer, at least 1"),
        (corner_head, "prior_prob", 0.0, "strictly between 0 and 1"),
        (corner_head, "conv_dim", 0, "an integer, at least 1"),
        (corner_head, "pool_channels", 0, "an integer, at least 1"),
        (CornerCriterion, "pull_weight", -0.1, "at least 0"),
    ],
)  # fmt: skip
def test_a_number_out_of_its_range(make, name, value, expected):
    with pytest.raises(ValueError, match=rf"^{name} is {value!r}; expected .*{expected}"):
        make(**{name: value})


def test_a_branch_loss():
    with pytest.raises(ValueError, match=r"weight is -1.0"):
        QualityBranchLoss(measure=localization_iou, weight=-1.0)


def test_alpha_of_minus_one_is_no_weighting():
    assert FocalLoss(alpha=-1).alpha == -1
