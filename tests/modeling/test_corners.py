"""Corner pooling, the best corners and their pairs, by hand."""

import pytest
import torch

from gfocal.modeling.corner_head import CornerHead
from gfocal.modeling.corners import (
    CornerMaps,
    Corners,
    best_corners,
    corner_pool,
    pair_corners,
    running_max,
)

ROW = torch.tensor([2.0, 1, 3, 0, 2])
# From a cell to the end; from the beginning to a cell.
TO_END, FROM_START = [3.0, 3, 3, 2, 2], [2.0, 2, 3, 3, 3]


@pytest.mark.parametrize("pool", [corner_pool, running_max])
def test_pooling_by_hand(pool):
    for to_end, expected in ((True, TO_END), (False, FROM_START)):
        assert pool(ROW[None], -1, to_end=to_end)[0].tolist() == expected
        assert pool(ROW[:, None], -2, to_end=to_end)[:, 0].tolist() == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (8, 16), (9, 17), (33, 5)])
@pytest.mark.parametrize("dim", [-2, -1])
@pytest.mark.parametrize("to_end", [True, False])
def test_both_ways_of_pooling(size, dim, to_end):
    """Values and gradients of cummax and of doubling, odd sizes too."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(x)
    one, two = corner_pool(x, dim, to_end=to_end), running_max(x, dim, to_end=to_end)
    assert torch.equal(one, two)
    assert torch.equal(corner_pool(x.detach(), dim, to_end=to_end), two)
    grads = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (one, two)]
    torch.testing.assert_close(*grads)


def test_a_trace_pools_maps_of_other_sizes():
    traced = torch.jit.trace(lambda x: running_max(x, -1, to_end=True), torch.randn(1, 1, 3, 5))
    for width in (1, 4, 37, 300):
        x = torch.randn(2, 3, 2, width)
        assert torch.equal(traced(x), corner_pool(x, -1, to_end=True))


def test_a_top_left_corner_sees_what_is_below_and_right_of_it():
    """With weights that let every feature pass, a pixel reaches the heat map of a top left corner
    to its left and above it, and nothing else."""
    head = CornerHead(in_channels=1, num_classes=1, num_stacks=1, pool_channels=1, norm="")
    for branch, reached in ((head.top_left[0], (2, 0)), (head.bottom_right[0], (2, 8))):
        pool = branch.pool
        for conv in (pool.over_rows, pool.over_columns, pool.merge, pool.shortcut, pool.out):
            torch.nn.init.zeros_(conv.weight)
            torch.nn.init.zeros_(conv.bias)
        for conv in (pool.over_rows, pool.over_columns, pool.merge, pool.out):
            conv.weight.data[0, 0, 1, 1] = 1
        x = torch.zeros(1, 1, 9, 9)
        x[0, 0, 2, 4] = 1  # row 2, column 4
        found = branch.pool(x)[0, 0]
        assert found[reached] == 1 and found[2, 8 - reached[1]] == 0
        above = reached[1] == 0
        assert found[0, 4] == above and found[8, 4] == (not above)
        assert found[2, 4] == 2  # of both directions


def corners(scores, classes, embeddings, points):
    columns = [torch.tensor([x]) for x in (scores, classes, embeddings, points)]
    return Corners(*columns)


FIRST = corners([0.8, 0.6, 0.4], [0, 1, 1], [0.0, 3.0, 5.0], [[10.0, 10], [20, 0], [0, 0]])


@pytest.mark.parametrize(
    ("score", "label", "embedding", "point", "pairs"),
    [
        # the one corner, by hand: mean of the scores
        (0.4, 0, 0.3, [30.0, 40.0], [(0.6, 0, [10, 10, 30, 40])]),
        (0.4, 1, 3.5, [30.0, 40.0], [(0.5, 1, [20, 0, 30, 40])]),  # at the distance
        (0.4, 1, 3.51, [30.0, 40.0], []),  # beyond
        (0.4, 1, 0.0, [30.0, 40.0], []),  # of another class
        (0.4, 0, 0.0, [10.0, 40.0], []),  # not to the right
        (0.4, 0, 0.0, [30.0, 10.0], []),  # not below
        (0.0, 0, 0.0, [30.0, 40.0], []),  # no corner
    ],
)
def test_pairs_by_hand(score, label, embedding, point, pairs):
    second = corners([score], [label], [embedding], [point])
    boxes, scores, classes = pair_corners(FIRST, second, limit=1000)
    assert scores.shape == (1, 3) and boxes.shape == (1, 3, 4)
    found = [
        (pytest.approx(s.item()), c.item(), b.tolist())
        for b, s, c in zip(boxes[0], scores[0], classes[0])
        if s > 0
    ]
    assert pairs == found


def test_the_best_pairs_come_first():
    second = corners([0.2, 0.9], [1, 1], [3.0, 4.6], [[50.0, 50], [60, 60]])
    boxes, scores, _ = pair_corners(FIRST, second, limit=2)
    # (0.4 + 0.9) / 2 at a distance of 0.4, then (0.6 + 0.2) / 2
    torch.testing.assert_close(scores, torch.tensor([[0.65, 0.4]]))
    assert boxes.tolist() == [[[0, 0, 60, 60], [20, 0, 50, 50]]]


def test_the_best_corners_by_hand():
    """Maps of 2 classes and 3 x 4 cells. A neighbour of a higher cell is no peak."""
    heat = torch.full((1, 2, 3, 4), -9.0)
    heat[0, 1, 2, 3], heat[0, 1, 1, 2], heat[0, 0, 0, 0] = 1.0, 0.5, 0.0
    embeddings = torch.arange(12.0).view(1, 1, 3, 4)
    offsets = torch.full((1, 2, 3, 4), 0.25)
    offsets[0, :, 0, 0] = torch.tensor([-0.5, 0.5])
    found = best_corners(CornerMaps(heat, embeddings, offsets), topk=2)
    torch.testing.assert_close(found.scores, torch.tensor([[1.0, 0.0]]).sigmoid())
    assert found.classes.tolist() == [[1, 0]] and found.embeddings.tolist() == [[11, 0]]
    # ((3, 2) + 0.25) * 4; left of the image is its side
    assert found.points.tolist() == [[[13, 9], [0, 2]]]
    many = best_corners(CornerMaps(heat, embeddings, offsets), topk=100)
    assert many.scores.shape == (1, 24) and (many.scores > 0.4).sum() == 2
