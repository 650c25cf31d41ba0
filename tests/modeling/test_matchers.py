"""Each matcher by hand, and against another formulation: ATSS against the full matrix, FCOS against
Detectron2's, FoveaBox's against a plain loop."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from gfocal.modeling.matchers import BACKGROUND, IGNORED, ATSSMatcher, FCOSMatcher, FoveaMatcher
from gfocal.modeling.structures import DenseAnchors
from tests.helpers import official
from tests.helpers.tiny import truth_of

STRIDES = [8, 16, 32, 64, 128]


def match(matcher, anchors, boxes, image_sizes=None):
    """(N, R) the matcher's answer."""
    matches = matcher(anchors, truth_of(boxes, image_sizes=image_sizes))
    assert matches.quality is None
    return matches.idxs


def make_anchors(height, width, strides=STRIDES, offset=0.0):
    shapes = [(-(-height // s), -(-width // s)) for s in strides]
    generator = DefaultAnchorGenerator(
        sizes=[[8 * s] for s in strides], aspect_ratios=[1.0], strides=strides, offset=offset
    )
    anchors = generator([torch.zeros(1, 1, *shape) for shape in shapes])
    return DenseAnchors.from_levels(anchors, shapes, strides)


def full_matrix_atss(anchors, boxes, topk, inside=None, values=None):
    """The definition (ATSS Alg. 1) with a box-by-anchor matrix, one box and level at a time.

    boxes (G, 4) -> (R,) index of the box, -1 background. ``inside`` (R,) limits the anchors.
    ``values`` (G, R) take the place of the IoUs.
    """
    anchor_boxes, centers = anchors.boxes.double(), anchors.centers.double()
    boxes = boxes.double()
    inside = torch.ones(len(centers), dtype=torch.bool) if inside is None else inside
    box_centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    distances = (centers[None] - box_centers[:, None]).square().sum(dim=-1)
    lt = torch.maximum(anchor_boxes[None, :, :2], boxes[:, None, :2])
    rb = torch.minimum(anchor_boxes[None, :, 2:], boxes[:, None, 2:])
    intersection = (rb - lt).clamp(min=0).prod(dim=-1)
    area = (anchor_boxes[:, 2:] - anchor_boxes[:, :2]).prod(dim=-1)
    box_area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
    ious = intersection / (area[None] + box_area[:, None] - intersection).clamp(min=1e-6)
    ious = ious if values is None else values

    best_iou = torch.full((len(centers),), -1.0, dtype=torch.float64)
    matched = torch.full((len(centers),), BACKGROUND)
    for g in range(len(boxes)):
        candidates, start = [], 0
        for size in anchors.level_sizes:
            level = torch.arange(start, start + size)
            level = level[inside[level]]
            order = distances[g, level].sort(stable=True).indices  # lowest index first among equals
            candidates.append(level[order[:topk]])
            start += size
        candidates = torch.cat(candidates)
        values = ious[g, candidates]
        std = values.std() if len(values) > 1 else torch.zeros(())
        x, y = centers[candidates].unbind(-1)
        sides = torch.stack([x - boxes[g, 0], y - boxes[g, 1], boxes[g, 2] - x, boxes[g, 3] - y])
        positive = candidates[(values >= values.mean() + std) & (sides.amin(dim=0) > 0.01)]
        claims = positive[ious[g, positive] > best_iou[positive]]
        best_iou[claims] = ious[g, claims]
        matched[claims] = g
    return matched


def test_official_assignments():
    cases = official.load("atss")
    for i in range(int(cases["num_cases"])):
        height, width = (int(n) for n in cases[f"shape_{i}"])
        boxes = torch.from_numpy(cases[f"gt_{i}"]).reshape(-1, 4)
        gt = Boxes(torch.zeros(0, 4))
        gt.tensor = boxes
        matched = match(ATSSMatcher(), make_anchors(height, width), [gt])
        wrong = (matched[0].numpy() != cases[f"gt_inds_{i}"] - 1).sum()
        assert wrong == 0, f"case {i}: {wrong} wrong anchors"


def test_by_hand():
    # One level of stride 8: 4 x 4 anchors of side 64, centred at 0, 8, 16, 24. topk 4. The box
    # [4, 4, 20, 20] is centred at (12, 12): the four nearest centres are (8, 8), (16, 8), (8, 16),
    # (16, 16), all inside. Each such anchor contains the box, so their IoUs are equal (256 / 4096),
    # their deviation 0, the threshold that IoU, and all four are positive.
    anchors = make_anchors(32, 32, strides=[8])
    matched = match(ATSSMatcher(topk=4), anchors, [Boxes(torch.tensor([[4.0, 4.0, 20.0, 20.0]]))])
    expected = torch.full((4, 4), BACKGROUND)
    expected[1:3, 1:3] = 0
    assert (matched.view(4, 4) == expected).all()


def test_equal_distances_lowest_index_wins():
    # Centred at (8, 8) on a centre; the 2nd nearest are four at distance 8. With topk 3 the lowest
    # indices, (8, 0) above and (0, 8) on the left, are candidates. All IoUs are equal.
    anchors = make_anchors(32, 32, strides=[8])
    matched = match(ATSSMatcher(topk=3), anchors, [Boxes(torch.tensor([[-4.0, -4.0, 20.0, 20.0]]))])
    assert (matched.view(-1) == 0).nonzero().flatten().tolist() == [1, 4, 5]


def test_duplicate_boxes_go_to_the_first():
    box = torch.tensor([[20.0, 20.0, 90.0, 84.0]])
    once = match(ATSSMatcher(), make_anchors(128, 128), [Boxes(box)])
    twice = match(ATSSMatcher(), make_anchors(128, 128), [Boxes(box.repeat(2, 1))])
    assert (once >= 0).any()
    assert torch.equal(once, twice)


def test_contested_anchor_goes_to_higher_iou():
    # Anchor (32, 32) of side 64 coincides with the second box; the first shares its centre.
    boxes = Boxes(torch.tensor([[8.0, 8.0, 56.0, 56.0], [0.0, 0.0, 64.0, 64.0]]))
    anchors = make_anchors(64, 64, strides=[8])
    matched = match(ATSSMatcher(topk=1), anchors, [boxes])
    assert (matched >= 0).nonzero()[:, 1].tolist() == [4 * 8 + 4]
    assert matched[0, 36] == 1


def test_images_do_not_mix_and_may_be_empty():
    first = Boxes(torch.tensor([[10.0, 10.0, 60.0, 50.0]]))
    second = Boxes(torch.tensor([[40.0, 30.0, 120.0, 120.0], [5.0, 5.0, 20.0, 30.0]]))
    none = Boxes(torch.zeros(0, 4))
    anchors = make_anchors(128, 128)
    matcher = ATSSMatcher()
    together = match(matcher, anchors, [first, none, second, none])
    assert torch.equal(together[0], match(matcher, anchors, [first])[0])
    assert torch.equal(together[2], match(matcher, anchors, [second])[0])
    assert (together[[1, 3]] == BACKGROUND).all()
    assert (match(matcher, anchors, [none, none]) == BACKGROUND).all()


def test_padding_is_ignored_and_holds_no_candidates():
    anchors = make_anchors(64, 128)
    boxes = Boxes(torch.tensor([[40.0, 10.0, 64.0, 40.0]]))
    matched = match(ATSSMatcher(), anchors, [boxes, boxes], [(64, 64), (64, 128)])
    padded, whole = matched
    inside = anchors.inside([(64, 64)])[0]
    assert (padded[~inside] == IGNORED).all()
    assert (padded[inside] != IGNORED).all()
    assert (whole != IGNORED).all()
    alone = match(ATSSMatcher(), make_anchors(64, 64), [boxes])[0]
    assert torch.equal(padded[inside], alone)


def test_bad_arguments():
    with pytest.raises(ValueError, match="topk is 0"):
        ATSSMatcher(topk=0)
    with pytest.raises(ValueError, match="2 image_sizes for 1"):
        match(ATSSMatcher(), make_anchors(64, 64), [Boxes(torch.zeros(0, 4))], [(64, 64), (64, 64)])


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    strides=st.sampled_from([[8], [8, 16, 32, 64, 128], [4, 64], [16, 32]]),
    offset=st.sampled_from([0.0, 0.5]),
    topk=st.sampled_from([1, 2, 3, 8, 9, 12]),
    num_boxes=st.integers(0, 12),
    integer=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_the_full_matrix(
    seed, height, width, strides, offset, topk, num_boxes, integer, dtype
):
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-0.5, 1.5, (num_boxes, 2)) * [width, height]  # some outside the image
    sizes = np.exp(rng.uniform(np.log(0.5), np.log(300), (num_boxes, 2)))
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)
    if integer:  # ties in distance are then common
        boxes = np.round(boxes)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    boxes = torch.from_numpy(boxes).to(dtype)
    if num_boxes > 1:
        boxes[-1] = boxes[0]
    gt = Boxes(torch.zeros(0, 4))
    gt.tensor = boxes
    anchors = make_anchors(height, width, strides, offset)
    limit = (int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1)))
    matched = match(ATSSMatcher(topk), anchors, [gt, gt], [(height, width), limit])
    assert torch.equal(matched[0], full_matrix_atss(anchors, boxes, topk))
    inside = anchors.inside([limit])[0]
    expected = full_matrix_atss(anchors, boxes, topk, inside)
    assert torch.equal(matched[1], torch.where(inside, expected, IGNORED))


def test_every_box_is_matched_if_asked():
    """On two levels a box smaller than half an anchor has candidates of equal IoU on each, none of
    which reaches mean + std."""
    anchors = make_anchors(64, 64, strides=[8, 16])
    tiny, large = [29.0, 29.0, 31.0, 31.0], [0.0, 0.0, 60.0, 60.0]
    boxes = [Boxes(torch.tensor([tiny, large, tiny, tiny])), Boxes(torch.zeros(0, 4))]
    plain = match(ATSSMatcher(), anchors, boxes)
    assert set(plain.flatten().tolist()) == {BACKGROUND, 1}
    matcher = ATSSMatcher(match_every_box=True)
    assert repr(matcher) == "ATSSMatcher(topk=9, match_every_box=True)"
    matched = match(matcher, anchors, boxes)
    assert (matched[1] == BACKGROUND).all()
    assert set(matched[0].tolist()) == {BACKGROUND, 0, 1, 2, 3}
    changed = matched[0] != plain[0]
    assert sorted(matched[0][changed].tolist()) == [0, 2, 3]  # one location each
    # All of the fine level's candidates have the same IoU with a tiny box, so the nearest free
    # ones are theirs: the cell at (32, 32) first.
    assert matched[0][4 * 8 + 4] == 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), num_boxes=st.integers(1, 12))
def test_matching_every_box_takes_nothing_else(seed, num_boxes):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(num_boxes, 2, generator=generator) * 128
    sides = 2 * 60 ** torch.rand(num_boxes, 2, generator=generator)
    boxes = [Boxes(torch.cat([centers - sides / 2, centers + sides / 2], dim=1)) for _ in "ab"]
    anchors = make_anchors(128, 128, strides=[8, 16])
    sizes = [(128, 128), (96, 128)]
    plain = match(ATSSMatcher(), anchors, boxes, sizes)
    matched = match(ATSSMatcher(match_every_box=True), anchors, boxes, sizes)
    assert ((matched == IGNORED) == (plain == IGNORED)).all()
    for ours, theirs in zip(matched, plain):
        has_none = set(range(num_boxes)) - set(theirs.tolist())
        assert set(ours[ours != theirs].tolist()) <= has_none
        assert set(range(num_boxes)) <= set(ours.tolist())


def test_fcos_by_hand():
    # Strides 8 and 16: the fine level takes furthest sides of up to 64 px, the coarse one more.
    # The box [10, 10, 50, 42] is centred at (30, 26): on the fine level the columns within 12 px of
    # 30 are 24, 32, 40 and the rows within 12 px of 26 are 16, 24, 32. All their sides are < 64 px.
    anchors = make_anchors(64, 64, strides=[8, 16])
    box = Boxes(torch.tensor([[10.0, 10.0, 50.0, 42.0]]))
    fine, coarse = match(FCOSMatcher(), anchors, [box])[0].split([64, 16])
    expected = torch.full((8, 8), BACKGROUND)
    expected[2:5, 3:6] = 0
    assert (fine.view(8, 8) == expected).all()
    assert (coarse == BACKGROUND).all()
    # Without centre sampling every location inside: columns 16..48, rows 16..40
    fine = match(FCOSMatcher(center_sampling_radius=0), anchors, [box])[0][:64].view(8, 8)
    expected[2:6, 2:7] = 0
    assert (fine == expected).all()


def test_fcos_smallest_box_and_level():
    anchors = make_anchors(256, 256, strides=[8, 16])
    boxes = [[0.0, 0.0, 240.0, 240.0], [96.0, 96.0, 144.0, 144.0], [96.0, 96.0, 144.0, 144.0]]
    matched = match(FCOSMatcher(), anchors, [Boxes(torch.tensor(boxes))])[0]
    fine, coarse = matched[: 32 * 32].view(32, 32), matched[32 * 32 :].view(16, 16)
    assert fine[15, 15] == 1  # (120, 120): the smaller one, and the first of the two
    assert (fine != 0).all()  # the large box has sides of more than 64 px
    assert coarse[7, 7] == 0  # (112, 112): 128 px to a side
    # Alone, the large one is still not of the fine level: every side is at most 64 px there.
    alone = match(FCOSMatcher(), anchors, [Boxes(torch.tensor(boxes[:1]))])[0]
    assert (alone[: 32 * 32] == BACKGROUND).all() and (alone[32 * 32 :] == 0).any()
    # And the small one, with 24 to 36 px to its sides, is not of the coarse level.
    alone = match(FCOSMatcher(), anchors, [Boxes(torch.tensor(boxes[1:2]))])[0]
    assert (alone[: 32 * 32] == 0).any() and (alone[32 * 32 :] == BACKGROUND).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_fcos_equals_detectron2(seed):
    """Detectron2 0.5 has no FCOS. (Where a side is exactly 8 strides long, ours matches and
    Detectron2's does not; boxes are drawn so that no two areas round to the same number there.)"""
    fcos = pytest.importorskip("detectron2.modeling.meta_arch.fcos").FCOS
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(8, 2, generator=generator) * 256
    sides = torch.arange(8)[:, None] * 24 + 9 + 11 * torch.rand(8, 2, generator=generator)
    boxes = Boxes(torch.cat([centers - sides / 2, centers + sides / 2], dim=1))
    anchors = make_anchors(256, 256, strides=[8, 16, 32])
    levels = []  # Detectron2 wants anchors of one stride
    for boxes_of_level in anchors.boxes.split(anchors.level_sizes):
        stride = (boxes_of_level[0, 2:] - boxes_of_level[0, :2]) / 8
        middle = (boxes_of_level[:, :2] + boxes_of_level[:, 2:]) / 2
        levels.append(Boxes(torch.cat([middle - stride / 2, middle + stride / 2], dim=1)))
    settings_of_fcos = SimpleNamespace(center_sampling_radius=1.5)
    quality, idxs = fcos._match_anchors(settings_of_fcos, boxes, levels).max(dim=0)
    expected = torch.where(quality < 1e-5, BACKGROUND, idxs)
    assert (match(FCOSMatcher(), anchors, [boxes])[0] == expected).all()


def test_fcos_with_an_empty_coarsest_level():
    shapes = [(32, 32), (0, 0)]
    fine = make_anchors(256, 256, strides=[8]).boxes
    anchors = DenseAnchors.from_levels([Boxes(fine), Boxes(torch.zeros(0, 4))], shapes, [8, 16])
    box = Boxes(torch.tensor([[8.0, 8.0, 248.0, 248.0]]))
    assert (match(FCOSMatcher(), anchors, [box]) == 0).sum() == 9


def test_fcos_errors_and_padding():
    with pytest.raises(ValueError, match="center_sampling_radius is -1"):
        FCOSMatcher(center_sampling_radius=-1)
    anchors = make_anchors(64, 128)
    boxes = Boxes(torch.tensor([[30.0, 10.0, 90.0, 60.0]]))
    matched = match(
        FCOSMatcher(), anchors, [boxes, Boxes(torch.zeros(0, 4))], [(64, 64), (64, 128)]
    )
    inside = anchors.inside([(64, 64)])[0]
    assert (matched[0][~inside] == IGNORED).all() and (matched[0][inside] != IGNORED).all()
    assert (matched[0] >= 0).any()
    assert (matched[1] == BACKGROUND).all()


def fovea_matches(height, width, boxes, strides=(8, 16, 32, 64, 128)):
    """(R,) FoveaBox's targets, painted box after box on each level, large ones first."""
    ret = []
    for i, stride in enumerate(strides):
        rows, columns = -(-height // stride), -(-width // stride)
        level = np.full((rows, columns), BACKGROUND)
        low, high = (1 / 8 if i == 0 else 2), (16 if i == len(strides) - 1 else 8)
        sizes = [math.sqrt((x2 - x1) * (y2 - y1)) for x1, y1, x2, y2 in boxes]
        for g in sorted(range(len(boxes)), key=lambda g: -sizes[g]):
            if not low * stride <= sizes[g] <= high * stride:
                continue
            x1, y1, x2, y2 = (side / stride for side in boxes[g])
            half_w, half_h = 0.5 * (x2 - x1), 0.5 * (y2 - y1)
            left = min(max(math.ceil(x1 + 0.6 * half_w - 0.5), 0), columns - 1)
            right = min(max(math.floor(x1 + 1.4 * half_w - 0.5), 0), columns - 1)
            top = min(max(math.ceil(y1 + 0.6 * half_h - 0.5), 0), rows - 1)
            bottom = min(max(math.floor(y1 + 1.4 * half_h - 0.5), 0), rows - 1)
            level[top : bottom + 1, left : right + 1] = g
        ret.append(level.ravel())
    return torch.from_numpy(np.concatenate(ret))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    num_boxes=st.integers(0, 12),
    integer=st.booleans(),
)
def test_fovea_equals_a_plain_loop(seed, height, width, num_boxes, integer):
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-0.1, 1.1, (num_boxes, 2)) * [width, height]  # some outside the image
    sizes = np.exp(rng.uniform(np.log(0.5), np.log(3000), (num_boxes, 2)))
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)
    if integer:  # the ends of the ranges, and half cells, are then common
        boxes = np.round(boxes / 4) * 4
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    if num_boxes > 1:
        boxes[-1] = boxes[0]
    gt = Boxes(torch.zeros(0, 4))
    gt.tensor = torch.from_numpy(boxes)
    anchors = make_anchors(height, width, offset=0.5)
    anchors = anchors._replace(boxes=anchors.boxes.double(), strides=anchors.strides.double())
    matched = match(FoveaMatcher(), anchors, [gt])[0]
    assert torch.equal(matched, fovea_matches(height, width, boxes.tolist()))


def test_fovea_by_hand():
    # Centred at (32, 28) with sides of 40 and 24 px: in cells of 8 px [1.5, 2, 6.5, 5], half sides
    # 2.5 and 1.5. Columns from ceil(1.5 + 0.6 * 2.5 - 0.5) = 3 to floor(1.5 + 1.4 * 2.5 - 0.5) = 4;
    # rows from ceil(2 + 0.6 * 1.5 - 0.5) = 3 to floor(2 + 1.4 * 1.5 - 0.5) = 3. The size,
    # sqrt(960) = 31 px, is of the finest level alone.
    anchors = make_anchors(64, 64, strides=[8, 16], offset=0.5)
    box = Boxes(torch.tensor([[12.0, 16.0, 52.0, 40.0]]))
    fine, coarse = match(FoveaMatcher(), anchors, [box])[0].split([64, 16])
    expected = torch.full((8, 8), BACKGROUND)
    expected[3, 3:5] = 0
    assert (fine.view(8, 8) == expected).all() and (coarse == BACKGROUND).all()
    assert repr(FoveaMatcher()) == "FoveaMatcher(sigma=0.4)"
    # The whole box: columns 2..6 - 0.5, so 1.5 - 0.5 = 1 to 6.5 - 0.5 = 6; rows 2 to 4.
    fine = match(FoveaMatcher(sigma=1.0), anchors, [box])[0][:64].view(8, 8)
    expected[2:5, 1:7] = 0
    assert (fine == expected).all()


@pytest.mark.parametrize(
    ("size", "levels"),
    [(0.9, []), (1.0, [0]), (31.9, [0]), (32.0, [0, 1]), (64.0, [0, 1, 2]), (64.1, [1, 2]),
     (128.0, [1, 2, 3]), (512.0, [3, 4]), (512.1, [4]), (2048.0, [4]), (2048.1, [])],
)  # fmt: skip
def test_fovea_levels(size, levels):
    """1..64, 32..128, 64..256, 128..512 and 256..2048 px, ends included."""
    anchors = make_anchors(1024, 1024, offset=0.5)
    # Centred on a centre of the finest level, and of a coarser one if that takes it.
    middle = 512.0 + 4 * 2 ** min(levels, default=0)
    box = Boxes(torch.tensor([[middle - size / 2] * 2 + [middle + size / 2] * 2]))
    matched = match(FoveaMatcher(), anchors, [box])[0].split(anchors.level_sizes)
    reach = [i for i, level in enumerate(matched) if (level == 0).any()]
    # A fovea of less than a stride may lie between the centres of a level of its size.
    assert set(reach) <= set(levels) and reach[:1] == levels[:1]
    assert set(reach) >= {i for i in levels if 0.4 * size >= 8 * 2**i}


def test_fovea_smallest_box_and_ties():
    anchors = make_anchors(64, 64, strides=[8], offset=0.5)
    small, large = [16.0, 16.0, 48.0, 48.0], [0.0, 0.0, 64.0, 64.0]
    boxes = Boxes(torch.tensor([small, large, small]))
    matched = match(FoveaMatcher(), anchors, [boxes])[0].view(8, 8)
    # cells [2, 6]: ceil(2 + 0.6 * 2 - 0.5) = 3 to floor(2 + 1.4 * 2 - 0.5) = 4, of box 2, the last;
    # cells [0, 8]: ceil(0.6 * 4 - 0.5) = 2 to floor(1.4 * 4 - 0.5) = 5
    expected = torch.full((8, 8), BACKGROUND)
    expected[2:6, 2:6] = 1
    expected[3:5, 3:5] = 2
    assert torch.equal(matched, expected)


def test_fovea_is_clamped_to_the_map():
    # [0, 0, 3, 3] px: no centre is in its fovea, [0.9, 2.1] px. In cells ceil(0.1125 - 0.5) = 0 to
    # floor(0.2625 - 0.5) = -1, which is clamped to 0. Away from the margin there is nothing.
    anchors = make_anchors(64, 64, strides=[8], offset=0.5)
    margin = match(FoveaMatcher(), anchors, [Boxes(torch.tensor([[0.0, 0.0, 3.0, 3.0]]))])[0]
    assert (margin >= 0).nonzero().flatten().tolist() == [0]
    inner = match(FoveaMatcher(), anchors, [Boxes(torch.tensor([[8.0, 8.0, 11.0, 11.0]]))])[0]
    assert (inner == BACKGROUND).all()


def test_fovea_padding_images_and_empty_levels():
    with pytest.raises(ValueError, match=r"sigma is 0; expected a number in \(0, 1\]"):
        FoveaMatcher(sigma=0)
    anchors = make_anchors(64, 128, offset=0.5)
    boxes = Boxes(torch.tensor([[30.0, 10.0, 90.0, 60.0]]))
    none = Boxes(torch.zeros(0, 4))
    matched = match(FoveaMatcher(), anchors, [boxes, none, boxes], [(64, 64), (64, 128), (64, 128)])
    inside = anchors.inside([(64, 64)])[0]
    assert (matched[0][~inside] == IGNORED).all() and (matched[0][inside] != IGNORED).all()
    assert (matched[1] == BACKGROUND).all()
    assert torch.equal(matched[2], match(FoveaMatcher(), anchors, [boxes])[0])
    assert torch.equal(matched[0][inside], matched[2][inside]) and (matched[0] >= 0).any()
    assert (match(FoveaMatcher(), anchors, [boxes]) != IGNORED).all()  # without sizes
    fine = make_anchors(256, 256, strides=[8], offset=0.5).boxes
    levels = [Boxes(fine), Boxes(torch.zeros(0, 4))]
    anchors = DenseAnchors.from_levels(levels, [(32, 32), (0, 0)], [8, 16])
    large = Boxes(torch.tensor([[64.0, 64.0, 192.0, 192.0]]))  # 16 strides of the coarsest level
    assert (match(FoveaMatcher(), anchors, [large]) == 0).sum() == 6 * 6
