"""Matching by IoU: by hand, and as the matrix of all IoUs would do it."""

import pytest
import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou
from torchvision.ops import box_iou

from gfocal.modeling.matchers import BACKGROUND, IGNORED, MaxIoUMatcher
from gfocal.modeling.priors import PriorGenerator, prior_sizes
from tests.helpers.tiny import truth_of

STRIDES = [8, 16, 32, 64, 128, 256, 512]


def ssd512(dtype=torch.float32):
    generator = PriorGenerator(
        sizes=prior_sizes(512, 7, (4, 10, 90)),
        aspect_ratios=[[2], *[[2, 3]] * 4, [2], [2]],
        strides=STRIDES,
    )
    maps = [torch.zeros(1, 1, 512 // s, 512 // s) for s in STRIDES]
    return generator.to(dtype)(maps)


def squares(side, columns, stride):
    """One square a cell, twice (min = max), in a row."""
    generator = PriorGenerator(sizes=[(side, side)], aspect_ratios=[[]], strides=[stride])
    return generator([torch.zeros(1, 1, 1, columns)])


def boxes(*rows, dtype=torch.float32):
    ret = Boxes(torch.zeros(0, 4))
    ret.tensor = torch.tensor(rows, dtype=dtype).reshape(-1, 4)
    return ret


def some_boxes(count, seed, dtype, size=512):
    """Sides from 8 to 400 px, anywhere in the image."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(count, 2, generator=generator).double() * size
    sides = 8 * 50 ** torch.rand(count, 2, generator=generator).double()
    found = torch.cat([centers - sides / 2, centers + sides / 2], dim=1).clamp(0, size)
    return boxes(*found[((found[:, 2:] - found[:, :2]) > 1).all(dim=1)].tolist(), dtype=dtype)


def by_matrix(priors, gt, thresh, image_sizes):
    rows = []
    inside = torch.ones(len(gt), len(priors.boxes), dtype=torch.bool)
    if image_sizes is not None:
        inside = priors.inside(image_sizes)
    for of_image, on_image in zip(gt, inside):
        row = torch.where(on_image, BACKGROUND, IGNORED)
        if len(of_image):
            ious = box_iou(of_image.tensor, priors.boxes) * on_image
            best, box = ious.max(dim=0)
            row = torch.where(best >= thresh, box, row)
            for index, (best, prior) in enumerate(zip(*ious.max(dim=1))):
                if best > 0:
                    row[prior] = index
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("thresh", [0.5, 0.3, 0.7])
def test_as_the_matrix_of_all_ious(dtype, thresh):
    priors, positives = ssd512(dtype), 0
    for seed in range(4):
        gt = [some_boxes(n, 10 * seed + n, dtype) for n in (0, 1, 7, 30)]
        sizes = [(512, 512), (300, 512), (512, 411), (512, 200)] if seed % 2 else None
        found = MaxIoUMatcher(thresh)(priors, truth_of(gt, image_sizes=sizes)).idxs
        assert torch.equal(found, by_matrix(priors, gt, thresh, sizes))
        positives += (found >= 0).sum().item()
    assert positives > 100


def test_many_small_boxes_go_in_pieces(monkeypatch):
    monkeypatch.setattr(MaxIoUMatcher, "PIECE", 10000)
    gt = [some_boxes(60, seed, torch.float32, size=500) for seed in range(2)]
    priors = ssd512()
    found = MaxIoUMatcher()(priors, truth_of(gt)).idxs
    assert torch.equal(found, by_matrix(priors, gt, 0.5, None))


def test_detectron2s_matcher_where_the_two_agree():
    """Where each box's best prior overlaps it by the threshold, and nothing ties."""
    priors = ssd512(torch.float64)
    gt = boxes([100, 100, 153, 148], [300, 40, 391, 149], [15, 290, 222, 497], dtype=torch.float64)
    found = MaxIoUMatcher()(priors, truth_of([gt])).idxs[0]
    matcher = Matcher([0.5], [0, 1], allow_low_quality_matches=True)
    idxs, labels = matcher(pairwise_iou(gt, Boxes(priors.boxes)))
    assert torch.equal(found, torch.where(labels == 1, idxs, BACKGROUND))
    assert found.unique().tolist() == [-1, 0, 1, 2]


def test_by_hand():
    """Squares of 8 px at x = 0, 8, 16, 24, two a cell. The box of 5 x 8 overlaps the first by 5/8
    and nothing else. The other two have their best prior at IoUs of 1/2 and of 2 * 8 / 64."""
    gt = boxes([0, 0, 5, 8], [8, 0, 16, 4], [24, 0, 26, 8])
    found = MaxIoUMatcher()(squares(8, columns=4, stride=8), truth_of([gt])).idxs
    # Both priors of a cell reach the threshold; of two that tie below it the first is taken.
    assert found.tolist() == [[0, 0, 1, 1, -1, -1, 2, -1]]


def test_ties_with_detectron2():
    """A box between two cells, at 1/3 of each: here the first prior takes it; Detectron2's all."""
    gt, priors = boxes([4, 0, 12, 8]), squares(8, columns=2, stride=8)
    assert MaxIoUMatcher()(priors, truth_of([gt])).idxs.tolist() == [[0, -1, -1, -1]]
    matcher = Matcher([0.5], [0, 1], allow_low_quality_matches=True)
    assert matcher(pairwise_iou(gt, Boxes(priors.boxes)))[1].tolist() == [1, 1, 1, 1]


def test_a_best_prior_that_another_box_overlaps_more():
    """Both boxes have the same best prior. The last one gets it; the first, which has no other,
    keeps the second of the two equal priors by its IoU of 1."""
    gt, priors = boxes([0, 0, 8, 8], [0, 0, 2, 8]), squares(8, columns=1, stride=8)
    assert MaxIoUMatcher()(priors, truth_of([gt])).idxs.tolist() == [[1, 0]]


def test_of_equal_boxes_the_first():
    gt = boxes([0, 0, 8, 8], [0, 0, 8, 8])
    generator = PriorGenerator(sizes=[(8, 8)], aspect_ratios=[[1, 1]], strides=[8])
    priors = generator([torch.zeros(1, 1, 1, 1)])
    # Six equal priors: all overlap both boxes fully. The last box takes the first as its best.
    assert MaxIoUMatcher()(priors, truth_of([gt])).idxs.tolist() == [[1, 0, 0, 0, 0, 0]]


def test_a_box_that_overlaps_nothing():
    found = MaxIoUMatcher()(squares(2, columns=2, stride=8), truth_of([boxes([6, 0, 9, 8])])).idxs
    assert found.tolist() == [[-1] * 4]


def test_nothing_is_matched_on_the_padding():
    gt = boxes([8, 0, 16, 8])
    found = MaxIoUMatcher()(squares(8, columns=3, stride=8), truth_of([gt], image_sizes=[(8, 8)]))
    assert found.idxs.tolist() == [[-1, -1, -2, -2, -2, -2]]


def test_no_boxes():
    found = MaxIoUMatcher()(squares(8, 2, 8), truth_of([boxes(), boxes()])).idxs
    assert found.tolist() == [[-1] * 4] * 2 and found.dtype == torch.int64


@pytest.mark.parametrize("thresh", [0, 1.5])
def test_wrong_thresholds(thresh):
    with pytest.raises(ValueError, match="iou_thresh is"):
        MaxIoUMatcher(thresh)
