"""The package's ways give what the papers' do, at the size of a real image."""

import pytest
import torch
from detectron2.structures import Boxes

from gfocal.benchmarks import inputs, ours, straightforward, tasks
from gfocal.modeling.structures import DenseTargets, GroundTruth, Matches


@pytest.fixture(scope="module")
def anchors():
    return inputs.make_anchors(torch.device("cpu"))


def test_assignments(anchors):
    """In float64, where no two distances are equal. (The exact oracle is in test_matcher.py.)"""
    gt = []
    for seed, num_boxes in enumerate((0, 1, 40)):
        boxes = inputs.make_boxes(num_boxes, torch.device("cpu"), seed)
        noise = torch.rand(num_boxes, 4, generator=torch.Generator().manual_seed(seed)).double()
        boxes.tensor = boxes.tensor.double() + 0.01 * noise
        gt.append(boxes)
    found = ours.atss(anchors, gt)
    assert torch.equal(found, straightforward.atss(anchors, gt))
    assert [(m >= 0).any().item() for m in found] == [False, True, True]


def test_task_aligned_assignments(anchors):
    gt = [inputs.make_boxes(count, torch.device("cpu"), count) for count in (1, 40)]
    truth = GroundTruth(gt, [torch.arange(len(x)) for x in gt])
    predictions = inputs.make_predictions(anchors, 2, True)
    found = ours.task_aligned(anchors, predictions, truth)
    expected = straightforward.task_aligned(anchors, predictions, truth)
    assert torch.equal(found.idxs, expected.idxs)
    torch.testing.assert_close(found.quality, expected.quality)
    assert (found.idxs >= 0).sum() > 100


@pytest.mark.parametrize("with_quality", [False, True])
def test_losses_and_gradients(anchors, with_quality):
    gt = [inputs.make_boxes(20, torch.device("cpu"), 1), Boxes(torch.zeros(0, 4))]
    classes = [torch.arange(20), torch.arange(0)]
    matched = ours.atss(anchors, gt, [(800, 1344), (800, 1000)])
    truth = GroundTruth(gt, classes)
    targets = DenseTargets.from_matches(Matches(matched), truth, inputs.NUM_CLASSES)
    predictions = inputs.make_predictions(anchors, 2, with_quality)
    leaves = [x.requires_grad_() for x in predictions.tensors]
    results = []
    for formulation in (ours, straightforward):
        values = formulation.losses(anchors, predictions, targets)
        results.append((values, torch.autograd.grad(sum(values.values()), leaves)))
    (values, grads), (expected, expected_grads) = results
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value, rtol=1e-5, atol=0)
    for a, b in zip(grads, expected_grads):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("with_quality", [False, True])
@pytest.mark.parametrize(("score_thresh", "topk"), [(0.05, 1000), (0.01, 30), (0.0, 50)])
def test_detections(anchors, with_quality, score_thresh, topk):
    arguments = (
        anchors,
        inputs.make_predictions(anchors, 2, with_quality),
        [(800, 1344), (700, 900)],
    )
    settings = {**tasks.TEST, "score_thresh": score_thresh, "topk_candidates": topk}
    for found, expected in zip(
        ours.detections(*arguments, **settings), straightforward.detections(*arguments, **settings)
    ):
        assert len(found) == len(expected) > 50
        assert found.image_size == expected.image_size
        torch.testing.assert_close(found.scores, expected.scores)
        assert torch.equal(found.pred_classes, expected.pred_classes)
        assert torch.equal(found.anchor_idxs, expected.anchor_idxs)
        torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_heatmaps():
    objects = inputs.make_objects(500, torch.device("cpu"))
    found = ours.painted_heatmaps(*objects)
    torch.testing.assert_close(found, straightforward.painted_heatmaps(*objects))
    assert objects[-1].max() > 20 and found.count_nonzero() > 40_000


def test_pairs_of_corners():
    corners = inputs.make_corners(3, torch.device("cpu"))
    found = ours.pair_corners(*corners, 1000)
    expected = straightforward.pair_corners(*corners, 1000)
    assert torch.equal(found.scores, expected[1])
    pairs = found.scores > 0
    assert pairs.sum() >= 60  # the objects
    assert torch.equal(found.boxes[pairs], expected[0][pairs])
    assert torch.equal(found.classes[pairs], expected[2][pairs])


def test_ssd():
    priors, truth, logits = inputs.make_ssd_batch(2, 30, torch.device("cpu"))
    truth.boxes[1].tensor, truth.classes[1] = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    logits.requires_grad_()
    results = []
    for formulation in (ours, straightforward):
        labels = formulation.ssd_labels(priors, truth)
        loss = formulation.ssd_loss(logits, labels)
        results.append((labels, loss, torch.autograd.grad(loss, logits)[0]))
    (labels, loss, grad), (expected_labels, expected, expected_grad) = results
    assert torch.equal(labels, expected_labels) and (labels[0] < 80).sum() > 100
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, expected_grad)
