"""Hard and soft NMS, by hand and against a loop."""

import math

import pytest
import torch
from torchvision.ops import box_iou

from gfocal.modeling.suppression import GaussianSoftNMS, HardNMS, LinearSoftNMS

# IoU 0.5 of the first two (10 x 10 and its upper half), 0 with the third.
BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]])
SCORES = torch.tensor([0.9, 0.8, 0.7])
SAME = torch.tensor([1, 1, 1])
OTHER = torch.tensor([1, 0, 1])


@pytest.mark.parametrize(
    ("suppression", "second"),
    [(LinearSoftNMS(0.3), 0.8 * 0.5), (GaussianSoftNMS(0.5), 0.8 * math.exp(-0.25 / 0.5))],
)
def test_soft_by_hand(suppression, second):
    kept = suppression(BOXES, SCORES, SAME, 100)
    assert kept.idxs.tolist() == [0, 2, 1]
    torch.testing.assert_close(kept.scores, torch.tensor([0.9, 0.7, second]))
    assert suppression(BOXES, SCORES, OTHER, 100).idxs.tolist() == [0, 1, 2]
    suppression.class_agnostic = True
    assert suppression(BOXES, SCORES, OTHER, 100).idxs.tolist() == [0, 2, 1]
    assert suppression(BOXES, SCORES, OTHER, 2).idxs.tolist() == [0, 2]
    suppression.min_score = 0.6
    assert suppression(BOXES, SCORES, OTHER, 100).idxs.tolist() == [0, 2]
    assert len(suppression(BOXES[:0], SCORES[:0], SAME[:0], 100).idxs) == 0


def test_the_linear_threshold():
    kept = LinearSoftNMS(0.5)(BOXES, SCORES, SAME, 100)
    assert torch.equal(kept.scores, SCORES)  # an IoU of 0.5 is not above it


def test_class_agnostic_hard():
    assert HardNMS(0.4)(BOXES, SCORES, OTHER, 100).idxs.tolist() == [0, 1, 2]
    assert HardNMS(0.4)(BOXES, SCORES, SAME, 100).idxs.tolist() == [0, 2]
    agnostic = HardNMS(0.4, class_agnostic=True)
    assert agnostic(BOXES, SCORES, OTHER, 100).idxs.tolist() == [0, 2]
    assert agnostic(BOXES, SCORES, OTHER, 1).idxs.tolist() == [0]


def loop(boxes, scores, classes, suppression):
    """The pseudo-code of the paper: (index, score) of each box."""
    left, ret = list(range(len(boxes))), []
    scores = scores.double().tolist()
    ious = box_iou(boxes.double(), boxes.double()).tolist()
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        ret.append((best, scores[best]))
        for i in left:
            if suppression.class_agnostic or classes[i] == classes[best]:
                iou = ious[best][i]
                if isinstance(suppression, GaussianSoftNMS):
                    scores[i] *= math.exp(-(iou**2) / suppression.sigma)
                elif iou > suppression.iou_thresh:
                    scores[i] *= 1 - iou
    return [(i, score) for i, score in ret if score >= suppression.min_score]


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("kind", [LinearSoftNMS, GaussianSoftNMS])
def test_soft_is_the_papers_loop(kind, class_agnostic):
    corners = torch.rand(120, 2) * 60
    boxes = torch.cat([corners, corners + 10 + torch.rand(120, 2) * 30], dim=1)
    scores, classes = torch.rand(120), torch.randint(0, 3, (120,))
    suppression = kind(class_agnostic=class_agnostic)
    expected = loop(boxes, scores, classes, suppression)
    for limit in (7, 10000):
        kept = suppression(boxes, scores, classes, limit)
        assert kept.idxs.tolist() == [i for i, _ in expected[:limit]]
        want = torch.tensor([score for _, score in expected[:limit]])
        torch.testing.assert_close(kept.scores, want)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HardNMS(-1), r"iou_thresh is -1; expected a number in \[0, 1\]"),
        (lambda: HardNMS(class_agnostic=1), "class_agnostic is 1; expected true or false"),
        (lambda: LinearSoftNMS(min_score=1), r"min_score is 1; expected a number in \[0, 1\)"),
        (lambda: GaussianSoftNMS(0), "sigma is 0; expected a number above 0"),
        (lambda: GaussianSoftNMS(math.inf), "sigma is inf"),
    ],
)
def test_numbers_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_classes_that_are_moved_apart():
    """Class 100 moves by 100 * 31: the sides of a box of 1e-4 px there are 0, and so is its IoU."""
    boxes = torch.tensor([[0.0, 0, 1e-4, 30], [0, 0, 1e-4, 15]])
    scores = torch.tensor([0.9, 0.8])
    classes = torch.tensor([100, 100])
    exact = GaussianSoftNMS()(boxes, scores, classes, 100)
    assert exact.scores[1].item() == pytest.approx(0.8 * math.exp(-0.25 / 0.5))
    moved = GaussianSoftNMS(class_shift=True)
    thin = moved(boxes, scores, classes, 100)
    assert thin.scores.tolist() == scores.tolist()
    # Of class 0, and of boxes as usual, nothing changes.
    for more in ((boxes, scores, classes * 0), (BOXES, SCORES, OTHER)):
        for a, b in zip(moved(*more, 100), GaussianSoftNMS()(*more, 100)):
            torch.testing.assert_close(a, b)
    assert len(moved(boxes[:0], scores[:0], classes[:0], 100).idxs) == 0
