"""Targets and losses of corners, by hand."""

import math

import pytest
import torch
from detectron2.structures import Boxes

from gfocal.modeling.corner_losses import CornerCriterion, objects_of, pull_and_push
from gfocal.modeling.corners import CornerMaps, CornerPredictions
from gfocal.modeling.heatmaps import corner_radius
from tests.helpers.tiny import truth_of

LOSSES = CornerCriterion(pull_weight=1.0, push_weight=1.0)
LIKE = torch.zeros(2, 3, 8, 16)  # maps of an image of 32 x 64 px


def objects(*boxes, classes=None, regions=()):
    images = [Boxes(torch.tensor(x, dtype=torch.float32).reshape(-1, 4)) for x in boxes]
    truth = truth_of(images, classes and [torch.tensor(x, dtype=torch.int64) for x in classes])
    return objects_of(truth._replace(ignore_regions=regions), LIKE)


def test_targets_by_hand():
    found = objects([], [[5.0, 2, 23, 12], [0, 0, 64, 32]], classes=[[], [2, 1]])
    first, second = found.corners
    assert found.image_idxs.tolist() == [1, 1] and found.max_count == 2
    # (5, 2) / 4 = (1.25, 0.5); (23, 12) / 4 = (5.75, 3.0)
    assert first.cells.tolist() == [[1, 0], [0, 0]] and second.cells.tolist() == [[5, 3], [15, 7]]
    assert first.offsets.tolist() == [[0.25, 0.5], [0, 0]]
    # The image ends at (16, 8), whose cell is the last one.
    assert second.offsets.tolist() == [[0.75, 0.0], [1, 1]]
    heat = first.heatmaps
    assert [(heat == 1).nonzero().tolist()] == [[[1, 1, 0, 0], [1, 2, 0, 1]]]
    # 18 x 10 px are 4.5 x 2.5 cells, rounded up 5 x 3: (8 - sqrt(64 - 2.8 * 15)) / 4 = 0.83
    assert heat[1, 2].count_nonzero() == 1
    # 16 x 8 cells: (24 - sqrt(576 - 2.8 * 128)) / 4 = 2.3, so radius 2 and sigma 5 / 6
    assert heat[1, 1].count_nonzero() == 9
    assert heat[1, 1, 0, 2].item() == pytest.approx(math.exp(-(2**2) / (2 * (5 / 6) ** 2)))
    assert not heat[0].any()


def test_who_teaches_the_offset():
    """The last of the objects whose corners share a cell, whatever their classes."""
    boxes = [[5.0, 2, 23, 12], [6, 3, 40, 12], [4, 0, 50, 30]]
    first, second = objects(boxes, [boxes[0]], classes=[[0, 1, 0], [0]]).corners
    assert first.has_offset.tolist() == [False, False, True, True]
    assert second.has_offset.tolist() == [True] * 4


def test_boxes_beyond_the_maps():
    found = objects([[-9.0, -9, 99, 99]], [[-9.0, 0, 0, 9], [64, 0, 70, 9], [60, 30, 70, 40]])
    assert found.image_idxs.tolist() == [0, 1]
    first, second = found.corners
    assert first.cells.tolist() == [[0, 0], [15, 7]] and second.cells.tolist() == [[15, 7]] * 2
    assert second.offsets.tolist() == [[1, 1], [1, 1]]


def test_the_radius_is_that_of_the_three_cases():
    """The smallest of the published three, rounded down, of all sides up to 128 cells."""
    m = 0.3
    w, h = torch.meshgrid(*[torch.arange(1, 129, dtype=torch.float64)] * 2, indexing="ij")
    cases = []
    for a, b, c, sign in (
        (1, w + h, w * h * (1 - m) / (1 + m), -1),
        (4, 2 * (w + h), (1 - m) * w * h, -1),
        (4 * m, -2 * m * (w + h), (m - 1) * w * h, 1),
    ):
        cases.append((b + sign * (b.square() - 4 * a * c).sqrt()) / (2 * a))
    published = torch.stack([cases[0], cases[1], cases[2]]).amin(dim=0).long()
    assert torch.equal(corner_radius(w.flatten(), h.flatten()).long(), published.flatten())


def test_pull_and_push_by_hand():
    first = torch.tensor([0.0, 1.0, 3.0, 5.0], requires_grad=True)
    second = torch.tensor([0.4, 1.4, 3.0, 6.0])
    # image 0: means 0.2, 1.2, 3.0; image 2: 5.5 alone
    images = torch.tensor([0, 0, 0, 2])
    pull, push = pull_and_push(first, second, images, 3, 3)
    # (2 * 0.2^2 + 2 * 0.2^2 + 0) / 3 + 2 * 0.5^2
    assert pull.item() == pytest.approx(0.16 / 3 + 0.5)
    # |0.2 - 1.2| = 1, |1.2 - 3.0| = 1.8: none is nearer than 1
    assert push.item() == pytest.approx(0, abs=1e-6)
    # means 0.2, 0.6 and 2.0: two ordered pairs with 1 - 0.4, over 3 * 2
    second = torch.tensor([0.4, 0.2, 1.0, 6.0])
    assert pull_and_push(first, second, images, 3, 3)[1].item() == pytest.approx(1.2 / 6)
    nothing = torch.zeros(0, requires_grad=True)
    values = pull_and_push(nothing, nothing, torch.zeros(0, dtype=torch.int64), 2, 0)
    assert [x.item() for x in values] == [0, 0]
    sum(values).backward()


def test_weights():
    found = objects([], [[6.0, 6, 10, 10]] * 2)
    plain = LOSSES(predictions(), found)
    found = CornerCriterion(offset_weight=3, push_weight=0.5)(predictions(), found)
    factors = {"loss_heatmap": 1, "loss_offset": 3, "loss_pull": 0.1, "loss_push": 0.5}
    assert found == {name: pytest.approx(plain[name] * x) for name, x in factors.items()}


def predictions(stacks=1, heat=0.0, offset=0.0):
    maps = CornerMaps(LIKE + heat, torch.zeros(2, 1, 8, 16), torch.full((2, 2, 8, 16), offset))
    return CornerPredictions(((maps, maps),) * stacks)


def test_losses_by_hand():
    """One object of 1 x 1 cells whose corners lie in the middle of cells."""
    found = objects([], [[6.0, 6, 10, 10]])
    losses = LOSSES(predictions(), found)
    # Of scores 0.5 a cell costs 0.5^2 log 2, whether it is the object's or not.
    heat = LIKE.numel() * 0.25 * math.log(2)
    assert losses["loss_heatmap"].item() == pytest.approx(heat, rel=1e-6)
    # SmoothL1 of 0.5 in x and y; of 2.5 it is 2.5 - 0.5
    assert losses["loss_offset"].item() == pytest.approx(2 * 0.5 * 0.5**2)
    far = LOSSES(predictions(offset=3.0), found)["loss_offset"]
    assert far.item() == pytest.approx(2 * 2.0)
    assert losses["loss_pull"].item() == losses["loss_push"].item() == 0
    # stacks are summed
    twice = LOSSES(predictions(stacks=2), found)
    assert twice["loss_heatmap"].item() == pytest.approx(2 * heat, rel=1e-6)
    # Two objects with the same corners, of two classes: two cells of heat maps, but one offset.
    found = objects([], [[6.0, 6, 10, 10]] * 2, classes=[[], [0, 1]])
    losses = LOSSES(predictions(), found)
    assert losses["loss_heatmap"].item() == pytest.approx(heat / 2, rel=1e-6)
    assert losses["loss_offset"].item() == pytest.approx(2 * 0.5 * 0.5**2)
    # Equal embeddings of two objects: 2 ordered pairs with 1 - 0, over 2 * 1.
    assert losses["loss_push"].item() == pytest.approx(1)


def test_a_batch_without_objects():
    """Every cell is background, and the sum is not divided."""
    losses = LOSSES(predictions(), objects([], []))
    assert losses["loss_heatmap"].item() == pytest.approx(
        LIKE.numel() * 0.25 * math.log(2), rel=1e-6
    )
    assert [losses[f"loss_{x}"].item() for x in ("offset", "pull", "push")] == [0, 0, 0]


@pytest.mark.parametrize(("images", "expected"), [(1, 1), (5, 5), (8, 5), (10, 5)])
def test_embeddings_of_large_batches(images, expected):
    """Of n images with push 1 each: the sum of up to five, and 5 times the mean of more."""
    like = torch.zeros(images, 2, 8, 8)
    boxes = [Boxes(torch.tensor([[0.0, 0, 9, 9], [8, 8, 30, 30]])) for _ in range(images)]
    maps = CornerMaps(like, torch.zeros(images, 1, 8, 8), torch.zeros(images, 2, 8, 8))
    losses = LOSSES(CornerPredictions(((maps, maps),)), objects_of(truth_of(boxes), like))
    assert losses["loss_push"].item() == pytest.approx(expected)
