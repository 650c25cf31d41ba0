"""The package's ways give what the papers' do, at the size of a real image."""

import pytest
import torch
from detectron2.structures import Boxes

from gfocal.box_distribution import GeneralDistribution
from gfocal.criterion import DistributionFocalLoss, GFLCriterion, GIoULoss, QualityFocalLoss
from gfocal.matcher import ATSSMatcher
from gfocal.postprocess import detections
from gfocal.structures import DenseTargets
from tests import straightforward
from tests.tools.loading import load_tool

benchmark = load_tool("benchmark")


@pytest.fixture(scope="module")
def anchors():
    return benchmark.make_anchors(torch.device("cpu"))


def test_assignments(anchors):
    """In float64, where no two distances are equal. (The exact oracle is in test_matcher.py.)"""
    gt = []
    for seed, num_boxes in enumerate((0, 1, 40)):
        boxes = benchmark.make_boxes(num_boxes, torch.device("cpu"), seed)
        noise = torch.rand(num_boxes, 4, generator=torch.Generator().manual_seed(seed)).double()
        boxes.tensor = boxes.tensor.double() + 0.01 * noise
        gt.append(boxes)
    ours = ATSSMatcher()(anchors, gt)
    assert torch.equal(ours, straightforward.atss(anchors, gt))
    assert [(m >= 0).any().item() for m in ours] == [False, True, True]


@pytest.mark.parametrize("with_quality", [False, True])
def test_losses_and_gradients(anchors, with_quality):
    gt = [benchmark.make_boxes(20, torch.device("cpu"), 1), Boxes(torch.zeros(0, 4))]
    classes = [torch.arange(20), torch.arange(0)]
    matched = ATSSMatcher()(anchors, gt, [(800, 1344), (800, 1000)])
    targets = DenseTargets.from_matches(matched, gt, classes, benchmark.NUM_CLASSES)
    predictions = benchmark.make_predictions(anchors, 2, with_quality)
    inputs = [x.requires_grad_() for x in predictions if x is not None]
    criterion = GFLCriterion(
        cls_loss=QualityFocalLoss(), box_loss=GIoULoss(), dist_loss=DistributionFocalLoss()
    )
    results = []
    for loss in (criterion, straightforward.losses):
        values = loss(anchors, predictions, targets, GeneralDistribution())
        results.append((values, torch.autograd.grad(sum(values.values()), inputs)))
    (ours, our_grads), (expected, expected_grads) = results
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=0)
    for a, b in zip(our_grads, expected_grads):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("with_quality", [False, True])
@pytest.mark.parametrize(
    ("score_thresh", "topk"), [(0.05, 1000), (0.01, 30), (0.0, 50), (-1.0, 50)]
)
def test_detections(anchors, with_quality, score_thresh, topk):
    arguments = (
        anchors,
        benchmark.make_predictions(anchors, 2, with_quality),
        [(800, 1344), (700, 900)],
        GeneralDistribution(),
    )
    settings = {**benchmark.TEST, "score_thresh": score_thresh, "topk_candidates": topk}
    for ours, expected in zip(
        detections(*arguments, **settings), straightforward.detections(*arguments, **settings)
    ):
        assert len(ours) == len(expected) > 50
        assert ours.image_size == expected.image_size
        torch.testing.assert_close(ours.scores, expected.scores)
        assert torch.equal(ours.pred_classes, expected.pred_classes)
        assert torch.equal(ours.anchor_idxs, expected.anchor_idxs)
        torch.testing.assert_close(ours.pred_boxes.tensor, expected.pred_boxes.tensor)
