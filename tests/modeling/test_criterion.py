"""The criterion: by hand on two locations, without foreground, and its normalisers."""

import math

import pytest
import torch

from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.quality import centerness, localization_iou, matched_quality
from gfocal.modeling.representations import GaussianDistance, GeneralDistribution
from gfocal.modeling.structures import DenseAnchors, DensePredictions, DenseTargets
from gfocal.modeling.terms import (
    DistributionFocalLoss,
    FocalLoss,
    GaussianNLLLoss,
    GIoULoss,
    QualityBranchLoss,
    QualityFocalLoss,
)


def make_criterion(**kwargs):
    terms = {
        "cls_loss": QualityFocalLoss(),
        "box_loss": GIoULoss(),
        "dist_loss": DistributionFocalLoss(),
    }
    return GFLCriterion(**{**terms, **kwargs})


def two_locations():
    """Stride 8; a foreground location at (8, 8) and a background one at (16, 8); 2 classes.

    All logits are 0: every score is 1/2 and every side of reg_max 2 is 1 stride, so that the
    predicted box is [0, 0, 16, 16].
    """
    anchors = DenseAnchors(
        boxes=torch.tensor([[-24.0, -24, 40, 40], [-16, -24, 48, 40]]),
        strides=torch.tensor([8.0, 8.0]),
        level_shapes=[(1, 2)],
    )
    predictions = DensePredictions(
        torch.zeros(1, 2, 2, requires_grad=True),
        torch.zeros(1, 2, 4, 3, requires_grad=True),
        box_representation=GeneralDistribution(reg_max=2),
    )
    targets = DenseTargets(
        labels=torch.tensor([[1, 2]]),
        boxes=torch.tensor([[[4.0, 0, 16, 16], [0, 0, 0, 0]]]),
    )
    return anchors, predictions, targets


def test_by_hand():
    anchors, predictions, targets = two_locations()
    losses = make_criterion()(anchors, predictions, targets)
    # IoU of [0, 0, 16, 16] and [4, 0, 16, 16] is 192 / 256 = 3/4. QFL of the foreground's class:
    # (3/4 - 1/2)^2 ln 2; of the three other scores: (1/2)^2 ln 2 each. One foreground location.
    qfl = (1 / 16 + 3 / 4) * math.log(2)
    assert losses["loss_cls"].item() == pytest.approx(qfl)
    # The smaller box lies inside the larger, so GIoU = IoU. Weight 2; box weights cancel.
    assert losses["loss_box_reg"].item() == pytest.approx(2 * (1 - 0.75), rel=1e-5)
    # Uniform bins: DFL is ln 3 on each side wherever the target lies. Weight 1/4.
    assert losses["loss_dfl"].item() == pytest.approx(0.25 * math.log(3))


def test_loss_inputs():
    anchors, predictions, targets = two_locations()
    inputs = make_criterion().loss_inputs(anchors, predictions, targets)
    assert inputs.fg_boxes.tolist() == [[0, 0, 16, 16]]
    assert inputs.fg_target_distances.tolist() == [[0.5, 1, 1, 1]]
    assert inputs.box_weights.tolist() == [0.5]
    assert not inputs.box_weights.requires_grad
    assert inputs.num_foreground.item() == 1
    assert inputs.total_box_weight.item() == 0.5


def test_ignored_locations_take_no_part():
    anchors, predictions, targets = two_locations()
    ignored = targets._replace(labels=torch.tensor([[1, -1]]))
    losses = make_criterion()(anchors, predictions, ignored)
    assert losses["loss_cls"].item() == pytest.approx((1 / 16 + 1 / 4) * math.log(2))
    losses["loss_cls"].backward()
    assert (predictions.cls_logits.grad[0, 1] == 0).all()
    assert (predictions.cls_logits.grad[0, 0] != 0).all()


def test_no_foreground_is_finite_and_every_input_has_a_gradient():
    anchors, predictions, targets = two_locations()
    nothing = targets._replace(labels=torch.tensor([[2, 2]]))
    losses = make_criterion()(anchors, predictions, nothing)
    assert losses["loss_box_reg"].item() == 0 and losses["loss_dfl"].item() == 0
    # four scores of 1/2, an image without foreground counts as one
    assert losses["loss_cls"].item() == pytest.approx(math.log(2))
    sum(losses.values()).backward()
    assert predictions.box_logits.grad.abs().sum() == 0
    assert predictions.cls_logits.grad.isfinite().all()


def test_boxes_without_weight_have_finite_gradients_under_a_gradient_scaler():
    """A predicted box without area has IoU 0, which is its weight beside an IoU branch."""
    anchors, predictions, targets = two_locations()
    with torch.no_grad():
        predictions.box_logits[..., 0] = 500.0
    criterion = make_criterion(box_weight=localization_iou)
    losses = criterion(anchors, predictions, targets)
    assert losses["loss_box_reg"].item() == losses["loss_dfl"].item() == 0
    (sum(losses.values()) * 2.0**16).backward()
    assert predictions.box_logits.grad.abs().sum() == 0


def test_each_image_counts_at_least_one():
    anchors, predictions, targets = two_locations()
    predictions = predictions.with_tensors([x.expand(3, *x.shape[1:]) for x in predictions.tensors])
    labels = torch.tensor([[1, 0], [2, 2], [2, 2]])  # 2 + 1 + 1
    targets = DenseTargets(labels, targets.boxes.expand(3, 2, 4))
    inputs = make_criterion().loss_inputs(anchors, predictions, targets)
    assert inputs.num_foreground.item() == 4


def test_labels_weights_and_divisor_of_a_matcher():
    """TOOD: soft labels 3/4 and 1/2 of two images, and three negatives of 1/2 each beside; the
    labels sum to 5/4. In a batch with too little of them the divisor is 1."""
    anchors, predictions, targets = two_locations()
    predictions = predictions.with_tensors([x.expand(2, *x.shape[1:]) for x in predictions.tensors])
    targets = DenseTargets(
        torch.tensor([[1, 2], [1, 2]]),
        targets.boxes.expand(2, 2, 4),
        quality=torch.tensor([[0.75, 0], [0.5, 0]]),
    )
    criterion = make_criterion(
        cls_loss=QualityFocalLoss(measure=matched_quality),
        box_weight=matched_quality,
        cls_divisor=None,
    )
    losses = criterion(anchors, predictions, targets)
    qfl = (1 / 16 + 0 + 6 / 4) * math.log(2)
    assert losses["loss_cls"].item() == pytest.approx(qfl / 1.25)
    inputs = criterion.loss_inputs(anchors, predictions, targets)
    assert inputs.num_foreground.item() == inputs.total_box_weight.item() == 1.25
    assert inputs.box_weights.tolist() == [0.75, 0.5]
    less = targets._replace(quality=targets.quality / 5)
    inputs = criterion.loss_inputs(anchors, predictions, less)
    assert inputs.num_foreground.item() == 1 and inputs.total_box_weight.item() == 0.25


def test_quality_label_is_not_a_path_for_gradients():
    """QFL's soft label is a target: loss_cls must not move the boxes."""
    anchors, predictions, targets = two_locations()
    losses = make_criterion()(anchors, predictions, targets)
    (grad,) = torch.autograd.grad(
        losses["loss_cls"], predictions.box_logits, allow_unused=True, retain_graph=True
    )
    assert grad is None
    (grad,) = torch.autograd.grad(
        losses["loss_box_reg"] + losses["loss_dfl"], predictions.cls_logits, allow_unused=True
    )
    assert grad is None


@pytest.mark.parametrize(("side", "target"), [(40.0, 15.9), (-8.0, 0.0)])
def test_dfl_targets_are_clipped(side, target):
    """The right side lies 5 strides of 8 px or outside the location; with reg_max 16 and bins of
    0.25 strides the first is beyond 16 bins and is learned as bin 15.9."""
    anchors, _, targets = two_locations()
    boxes = torch.tensor([[[4.0, 0, 8.0 + side, 16], [0, 0, 0, 0]]])
    logits = torch.randn(1, 2, 4, 17)
    predictions = DensePredictions(
        torch.zeros(1, 2, 2), logits, None, GeneralDistribution(16, 0.25)
    )
    criterion = make_criterion(dist_loss=DistributionFocalLoss(weight=1.0))
    inputs = criterion.loss_inputs(anchors, predictions, targets._replace(boxes=boxes))
    log_probs = logits[0, 0, 2].log_softmax(-1)
    left = int(target)
    expected = -(left + 1 - target) * log_probs[left] - (target - left) * log_probs[left + 1]
    only_right = inputs._replace(
        fg_target_distances=inputs.fg_target_distances[:, 2:3].expand(1, 4),
        fg_box_logits=inputs.fg_box_logits[:, 2:3].expand(1, 4, 17),
    )
    assert criterion.dist_loss(only_right).item() == pytest.approx(expected.item(), rel=1e-5)


def test_terms_and_weights_are_parts():
    anchors, predictions, targets = two_locations()

    class BoxCount(torch.nn.Module):
        def forward(self, inputs):
            return inputs.box_weights.sum()

    criterion = GFLCriterion(
        cls_loss=QualityFocalLoss(weight=2.0),
        box_loss=GIoULoss(weight=1.0),
        quality_loss=BoxCount(),
        box_weight=lambda inputs: inputs.fg_distances.new_full((len(inputs.fg_boxes),), 7.0),
    )
    losses = criterion(anchors, predictions, targets)
    assert losses.keys() == {"loss_cls", "loss_box_reg", "loss_quality"}
    assert losses["loss_quality"].item() == 7.0
    assert losses["loss_box_reg"].item() == pytest.approx(0.25, rel=1e-5)
    assert losses["loss_cls"].item() == pytest.approx(2 * (1 / 16 + 3 / 4) * math.log(2))


def test_measures_by_hand():
    anchors, predictions, targets = two_locations()
    inputs = make_criterion().loss_inputs(anchors, predictions, targets)
    # The true sides lie 4, 8, 8, 8 px away: sqrt(4/8 * 8/8). The IoU is 3/4, see test_by_hand.
    assert centerness(inputs).tolist() == pytest.approx([math.sqrt(0.5)])
    assert localization_iou(inputs).tolist() == pytest.approx([0.75])
    assert not localization_iou(inputs).requires_grad


def test_focal_loss_by_hand():
    anchors, predictions, targets = two_locations()
    inputs = make_criterion().loss_inputs(anchors, predictions, targets)
    # Every score is 1/2. The positive: 1/4 (1/2)^2 ln 2; three negatives: 3/4 (1/2)^2 ln 2 each.
    positive, negatives = math.log(2) / 16, 9 * math.log(2) / 16
    assert FocalLoss()(inputs).item() == pytest.approx(positive + negatives)
    guided = FocalLoss(positive_weight=localization_iou)
    assert guided(inputs).item() == pytest.approx(0.75 * positive + negatives)


def test_quality_branch_loss_by_hand():
    anchors, predictions, targets = two_locations()
    quality = torch.tensor([[[math.log(3)], [5.0]]], requires_grad=True)  # sigmoid(ln 3) = 3/4
    predictions = predictions._replace(quality_logits=quality)
    inputs = make_criterion().loss_inputs(anchors, predictions, targets)
    # -(3/4 ln 3/4 + 1/4 ln 1/4) on the only foreground location
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    loss = QualityBranchLoss(measure=localization_iou)(inputs)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert quality.grad.flatten().tolist() == pytest.approx(
        [0.0, 0.0], abs=1e-6
    )  # right; not asked
    with pytest.raises(ValueError, match="no quality to train"):
        predictions = inputs.predictions._replace(quality_logits=None)
        QualityBranchLoss(measure=centerness)(inputs._replace(predictions=predictions))


def test_gaussian_nll_by_hand():
    anchors, _, targets = two_locations()
    # mean 1 and deviation 1/2 stride on every side; the true sides lie 1/2, 1, 1, 1 stride away
    box_logits = torch.zeros(1, 2, 4, 2)
    box_logits[..., 1] = math.log(0.5)
    predictions = DensePredictions(torch.zeros(1, 2, 2), box_logits, None, GaussianDistance())
    inputs = make_criterion().loss_inputs(anchors, predictions, targets)
    # ln(variance) / 2 = ln(1/2); the left side adds (1/2)^2 / (2 * 1/4) = 1/2, averaged over four
    expected = math.log(0.5) + 0.5 / 4
    assert GaussianNLLLoss(weight=1.0)(inputs).item() == pytest.approx(expected)
