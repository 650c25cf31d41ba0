"""The table that `gfocal export` prints, by hand."""

import math

import pytest
import torch

from gfocal.export.card import ModelCard
from gfocal.export.comparing import (
    among_candidates,
    compare,
    compare_ranked,
    is_ranked,
    with_own_peaks,
)
from gfocal.export.parity import (
    LIMITS,
    LOWEST_SCORE,
    Difference,
    Limits,
    check_images,
    parity,
    table,
)
from tests.helpers.spread import make_spread_gfl

pytestmark = pytest.mark.usefixtures("one_thread")


def found(*rows):
    """Detections (x0, y0, x1, y1, score, class, image)."""
    data = torch.tensor(rows, dtype=torch.float32).view(-1, 7)
    return {
        "boxes": data[:, :4],
        "scores": data[:, 4],
        "classes": data[:, 5].long(),
        "image_idxs": data[:, 6].long(),
    }


A = (0, 0, 10, 10, 0.75, 1, 0)
B = (20, 20, 40, 40, 0.5, 2, 0)


def test_the_same():
    assert compare(found(A, B), found(A, B)) == (0.0, 0.0, 0)
    assert compare(found(), found()) == (0.0, 0.0, 0)
    equal = (50, 20, 70, 40, 0.75, 1, 0)  # which of two equals is first is nobody's contract
    assert compare(found(A, equal), found(equal, A)) == (0.0, 0.0, 0)


def test_another_order_is_another_answer():
    """Image after image, each best first."""
    assert compare(found(A, B), found(B, A)) == (0.0, 0.0, 2)
    other = (*B[:6], 1)
    assert compare(found(A, other), found(A, other)) == (0.0, 0.0, 0)
    assert compare(found(A, other), found(other, A)) == (0.0, 0.0, 2)


def test_standard_deviations_are_compared():
    ours, theirs = ({**found(A, B), "stds": torch.ones(2, 4)} for _ in range(2))
    assert compare(ours, theirs) == (0.0, 0.0, 0)
    theirs["stds"][1, 3] = 3.0
    assert compare(ours, theirs) == (0.0, 2.0, 0)


@pytest.mark.parametrize("name", ["scores", "stds"])
def test_what_is_no_number_is_infinitely_far(name):
    ours, theirs = ({**found(A, B), "stds": torch.ones(2, 4)} for _ in range(2))
    theirs[name][1] = math.nan
    score, box, _ = compare(ours, theirs)
    assert (score, box) == ((math.inf, 0.0) if name == "scores" else (0.0, math.inf))


def test_what_both_have_differs_by_the_worst():
    other = (0, 0.25, 10, 10, 0.5, 1, 0)  # IoU 0.975
    assert compare(found(A, B), found(other, B)) == (0.25, 0.25, 0)


@pytest.mark.parametrize(
    "other",
    [
        (0, 0, 10, 10, 0.75, 1, 1),  # of another image
        (0, 0, 10, 10, 0.75, 0, 0),  # of another class
        (0, 0, 10, 8.5, 0.75, 1, 0),  # IoU 0.85
    ],
)
def test_what_only_one_has_is_counted(other):
    theirs = (B, other) if other[6] else (other, B)
    assert compare(found(A, B), found(*theirs)) == (0.0, 0.0, 2)
    assert compare(found(A, B), found(B)) == (0.0, 0.0, 1)
    assert compare(found(B), found(A, B)) == (0.0, 0.0, 1)


def test_each_has_one_partner():
    """Two equal boxes of one class, as after an NMS that leaves them."""
    assert compare(found(A, A), found(A)) == (0.0, 0.0, 1)
    assert compare(found(A, A), found(A, A)) == (0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("score", "box", "differ", "passes"),
    [
        (0.1, 1.0, 2, True),
        (0.2, 1.0, 2, False),
        (0.1, 1.5, 2, False),
        (0.1, 1.0, 3, False),
        (math.nan, 1.0, 0, False),
        (0.1, math.nan, 0, False),
    ],
)
def test_limits(score, box, differ, passes):
    row = Difference((1, 8, 8), 0.05, 20, score, box, differ)
    assert row.passes(Limits(0.1, 1.0, 0.1)) is passes


def test_the_table():
    rows = [
        Difference((1, 161, 163), 0.05, 9, 1.5e-7, 3e-5, 0),
        Difference((2, 30, 40), None, 128, 0.5, 12.0, 3),
    ]
    assert table(rows, "full").splitlines() == [
        "        batch  threshold  detections  worst score  worst box (px)  differ",
        "1 x 161 x 163       0.05           9      1.5e-07         3.0e-05       0",
        "  2 x 30 x 40                    128      5.0e-01         1.2e+01       3",
    ]
    first, row, _ = table(rows, "decoded").splitlines()
    assert "locations" in first and row.split()[-1] == "3.0e-05"


class Graph:
    """The detector itself as a file, with its threshold in the file's card."""

    def __init__(self, model, card, *, threshold=None, add=0.0):
        self.model, self.card, self.threshold, self.add = model, card, threshold, add

    @torch.no_grad()
    def __call__(self, images, image_sizes=None):
        before = self.model.test_score_thresh
        if self.threshold is not None:
            self.model.test_score_thresh = self.threshold
        results = [x["instances"] for x in self.model([{"image": image} for image in images])]
        self.model.test_score_thresh = before
        return {
            "boxes": torch.cat([x.pred_boxes.tensor for x in results]) + self.add,
            "scores": torch.cat([x.scores for x in results]),
            "classes": torch.cat([x.pred_classes for x in results]),
            "image_idxs": torch.cat(
                [torch.full_like(x.pred_classes, i) for i, x in enumerate(results)]
            ),
        }

    def with_score_thresh(self, values):
        return Graph(self.model, self.card, threshold=values.tolist(), add=self.add)


def card(max_detections=100):
    return ModelCard(
        level="full",
        preprocessing="inside",
        stds=False,
        precision="float32",
        num_classes=3,
        class_names=[],
        category_ids=[],
        input_format="BGR",
        pixel_mean=[0.0] * 3,
        pixel_std=[1.0] * 3,
        size_divisibility=16,
        resize=None,
        strides=[8, 16],
        score_thresh=0.05,
        nms_thresh=0.6,
        class_agnostic=False,
        topk_candidates=1000,
        max_detections=max_detections,
        versions={},
    )


def test_other_thresholds_are_tried():
    """A higher one for each class, then lower ones; the detector has its own at the end."""
    model = make_spread_gfl(test_score_thresh=0.9999)
    rows = parity(model, Graph(model, card()), check_images(card()))
    assert [row.threshold for row in rows[:4]] == [pytest.approx(0.9999)] * 4 and len(rows) == 12
    own, higher, lower = rows[:4], rows[4:8], rows[8:]
    assert all(row.found == 0 for row in own)
    for a, b in zip(higher, lower):
        assert 0 < a.found < b.found and LOWEST_SCORE <= b.threshold < a.threshold < 0.9999
    assert higher[0].found < 100 <= lower[2].found  # its scores decide; the limit does
    assert all(row.passes(LIMITS["float32"]) for row in rows)
    assert model.test_score_thresh == 0.9999


def test_more_images_are_compared_once():
    model = make_spread_gfl()
    more = [torch.rand(1, 3, 50, 70) * 255]
    rows = parity(model, Graph(model, card()), check_images(card()), more)
    assert [row.shape for row in rows].count((1, 50, 70)) == 1 and len(rows) == 13


def test_a_box_that_is_off_does_not_pass():
    model = make_spread_gfl()
    rows = parity(model, Graph(model, card(), add=0.01), check_images(card()))
    assert len(rows) == 12 and not any(row.passes(LIMITS["float32"]) for row in rows)
    assert all(row.box == pytest.approx(0.01, abs=1e-4) for row in rows)


def test_another_threshold_does_not_pass():
    model = make_spread_gfl()
    rows = parity(model, Graph(model, card(), threshold=0.3), check_images(card()))
    assert not any(row.passes(LIMITS["float32"]) for row in rows[:4])


def test_the_pictures():
    batches = check_images(card())
    assert len({batch.shape for batch in batches}) == 4
    assert max(len(batch) for batch in batches) == 4
    for batch in batches:
        assert 0 <= batch.min() and batch.max() <= 255 and batch.std() > 20
    assert all(torch.equal(a, b) for a, b in zip(batches, check_images(card())))


def candidates(*rows):
    """Candidates (x0, y0, x1, y1, score) of one class and image, as of level "decoded"."""
    data = torch.tensor(rows, dtype=torch.float32)
    return {"boxes": data[None, :, :4], "scores": data[None, :, 4:]}


def test_ranked_candidates_may_come_in_another_order():
    a, b, c, last = (0, 0, 9, 9, 0.8), (5, 5, 9, 9, 0.8), (1, 2, 3, 4, 0.5), (0, 0, 1, 1, 0.0)
    assert is_ranked(candidates(a, b, c, last)) and not is_ranked(candidates(c, a, b))
    assert compare_ranked(candidates(a, b, c, last), candidates(b, a, c, last), 1e-5) == (0, 0)
    # What scores as the last is not looked at: of pairs without a score any may be there.
    other = (7, 7, 9, 9, 0.0)
    assert compare_ranked(candidates(a, b, last), candidates(a, b, other), 1e-5) == (0, 0)
    moved = (5, 5, 9, 9.5, 0.8)
    assert compare_ranked(candidates(a, b, last), candidates(a, moved, last), 1e-5) == (0, 0.5)
    for ours, theirs in ((a, c), (c, a)):  # one is not there, or one is more
        lost = compare_ranked(candidates(ours, last), candidates(theirs, last), 1e-5)
        assert lost == (0, math.inf)
    assert compare_ranked(candidates(a, last), candidates(a, b, last), 1e-5)[1] == math.inf


def test_a_detection_is_one_of_the_candidates():
    dense = candidates((0, 0, 10, 10, 0.75), (0, 0, 10, 11, 0.5))
    ours = found((0, 0, 10, 10.25, 0.75, 0, 0))
    assert among_candidates(ours, dense, 1e-5, lowers=False) == (0, 0.25)
    lowered = found((0, 0, 10, 10, 0.625, 0, 0))
    assert among_candidates(lowered, dense, 1e-5, lowers=False) == (0, math.inf)
    assert among_candidates(lowered, dense, 1e-5, lowers=True) == (0, 0)
    assert among_candidates(lowered, dense, 0.15, lowers=False) == (0.125, 0)


def test_boxes_that_are_not_clipped_may_be_empty():
    empty, other = (9, 9, 5, 9, 0.75, 1, 0), (9, 9, 5, 9.5, 0.75, 1, 0)
    assert compare(found(empty), found(other), clipped=False) == (0.0, 0.5, 0)
    assert compare(found(empty), found((9, 9, 5, 15, 0.75, 1, 0)), clipped=False)[2] == 2


def test_the_last_bit_decides_about_few_peaks():
    ours, theirs = torch.full((1, 200, 1), 0.5), torch.full((1, 200, 1), 0.25)
    theirs[0, :2] = 0  # 2 of 200 are no peaks there
    assert with_own_peaks(ours, theirs, 0.01).flatten().tolist() == [0.5] * 2 + [0.25] * 198
    theirs[0, 2] = 0
    assert torch.equal(with_own_peaks(ours, theirs, 0.01), theirs)
    assert torch.equal(with_own_peaks(ours, theirs[:, :9], 0.01), theirs[:, :9])
