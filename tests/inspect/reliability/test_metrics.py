"""Metrics of scores: by hand, of known calibration, and against uq-detr."""

import math

import numpy as np
import pytest
import uq_detr
from hypothesis import given, settings
from hypothesis import strategies as st

from gfocal.inspect.reliability import metrics
from gfocal.inspect.reliability.matching import concatenated, match
from tests.inspect.reliability.test_matching import objects, random_image


def test_bins_have_their_upper_edge():
    bins = metrics.binned(np.array([0.0, 0.2, 0.21, 1.0]), np.array([1.0, 0, 1, 1]), 5)
    np.testing.assert_array_equal(bins.counts, [2, 1, 0, 0, 1])
    np.testing.assert_allclose(bins.scores, [0.1, 0.21, np.nan, np.nan, 1.0])
    np.testing.assert_allclose(bins.values, [0.5, 1.0, np.nan, np.nan, 1.0])


def test_calibration_error_by_hand():
    """Two bins: [0, .5] has mean score .3 and mean value 1/3; (.5, 1] has .8 and 1. So the error is
    3/5 * |.3 - 1/3| + 2/5 * |.8 - 1| = .02 + .08."""
    scores, values = np.array([0.1, 0.3, 0.5, 0.7, 0.9]), np.array([0, 0, 1, 1, 1])
    assert metrics.calibration_error(scores, values, 2) == pytest.approx(0.1)
    # Bins between .1 and .9 are the same here, but the edge is at .5 as well.
    assert metrics.calibration_error(scores, values, 2, (0.1, 0.9)) == pytest.approx(0.1)
    # What is beyond the limits is in the last bin on that side.
    assert metrics.calibration_error(scores, values, 2, (0.0, 0.5)) == pytest.approx(
        # [0, .25]: .1 and 0. (.25, .5]: .3, .5, .7, .9 with mean .6 and value 3/4.
        0.2 * 0.1 + 0.8 * 0.15
    )
    assert math.isnan(metrics.calibration_error(scores[:0], values[:0]))


def test_laece_and_laace_by_hand():
    """Class 0: scores .4 and .6 in one bin each of 5 (edges .2, .4, .6), IoUs .5 and 0: errors .1
    and .6, mean .35. Class 1: scores .81 and .91 in one bin, IoUs .91 and .81: error 0, but each is
    off by .1. Class 2 has no detection, class 3 no object."""
    scores = np.array([0.4, 0.6, 0.81, 0.91, 0.5])
    classes = np.array([0, 0, 1, 1, 3])
    ious = np.array([0.5, 0.0, 0.91, 0.81, 0.0])
    measured = [0, 1, 2]
    assert metrics.laece(scores, classes, ious, measured, 5) == pytest.approx((0.35 + 0) / 2)
    assert metrics.laace(scores, classes, ious, measured) == pytest.approx((0.35 + 0.1) / 2)
    # With class 3, as uq-detr counts: its error is .5.
    assert metrics.laece(scores, classes, ious, [0, 1, 3], 5) == pytest.approx(0.85 / 3)
    assert math.isnan(metrics.laece(scores, classes, ious, [2]))
    assert math.isnan(metrics.laace(scores, classes, ious, []))


def test_scores_that_are_right_on_average_have_no_error():
    rng = np.random.default_rng(0)
    scores = rng.random(200_000)
    is_true = rng.random(200_000) < scores
    classes = rng.integers(0, 3, 200_000)
    assert metrics.calibration_error(scores, is_true) < 0.01
    assert metrics.laece(scores, classes, is_true.astype(float), range(3)) < 0.015
    # E|s - y| of a Bernoulli y is 2 s (1 - s), on average 1/3: LaACE sees each detection.
    assert metrics.laace(scores, classes, is_true, range(3)) == pytest.approx(1 / 3, abs=0.01)
    # Scores that are too high by a third of what is missing to 1: 1/6 on average.
    assert metrics.calibration_error(scores + (1 - scores) / 3, is_true) == pytest.approx(
        1 / 6, abs=0.01
    )


def test_correlations():
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.spearman(a, a**3) == pytest.approx(1.0)
    assert metrics.spearman(a, -(a**3)) == pytest.approx(-1.0)
    # Ranks 1 2 3 4 and 2 1 4 3: 1 - 6 * 4 / (4 * 15).
    assert metrics.spearman(a, np.array([2.0, 1.0, 9.0, 3.0])) == pytest.approx(0.6)
    # Centred 1.5 0.5 -0.5 -1.5 by itself doubled, and one that is orthogonal to it.
    assert metrics.pearson(a, 2 * a + 7) == pytest.approx(1.0)
    assert metrics.pearson(a, np.array([1.0, -1.0, -1.0, 1.0])) == pytest.approx(0.0)


@pytest.mark.parametrize("measure", [metrics.pearson, metrics.spearman])
def test_correlations_of_nothing_are_nan(measure):
    a = np.array([1.0, 2.0, 3.0])
    assert math.isnan(measure(a, np.ones(3)))
    assert math.isnan(measure(np.ones(3), a))
    assert math.isnan(measure(a[:2], a[:2]))  # any two pairs would have 1 or -1
    assert math.isnan(measure(a[:0], a[:0]))


def test_lrp_by_hand():
    """3 objects. IoU .9 and .7 are true with the threshold .5, one detection is false, one object
    is not found: (.1/.5 + .3/.5 + 1 + 1) / 4 = .7."""
    scores, ious = np.array([0.5, 0.9, 0.7]), np.array([0.7, 0.9, 0.0])
    ours = metrics.lrp(scores, ious, 3, 0.5)
    assert ours.total == pytest.approx(0.7)
    assert ours.localization == pytest.approx(0.2)
    assert (ours.false_positives, ours.false_negatives) == pytest.approx((1 / 3, 1 / 3))
    # The best detection alone: (.2 + 0 + 2) / 3. The best two: (.2 + 1 + 2) / 4.
    best = metrics.optimal_lrp(scores, ious, 3, 0.5)
    assert best == ours
    assert best.score == 0.5
    # With a second false one at .5 all have (.8 + 2 + 1) / 5 = .76, and the best alone is better.
    best = metrics.optimal_lrp(np.append(scores, 0.5), np.append(ious, 0.0), 3, 0.5)
    assert best.total == pytest.approx(2.2 / 3)
    assert (best.localization, best.false_positives, best.score) == pytest.approx((0.1, 0, 0.9))
    assert best.false_negatives == pytest.approx(2 / 3)


def test_lrp_of_equal_scores_counts_them_together():
    """A threshold can't part a true from a false detection of the same score."""
    best = metrics.optimal_lrp(np.array([0.5, 0.5]), np.array([1.0, 0.0]), 1, 0.5)
    assert best.total == pytest.approx(0.5)  # 1 FP of 2


def test_lrp_without_detections_and_without_objects():
    none = np.zeros(0)
    for measure in (metrics.lrp, metrics.optimal_lrp):
        ours = measure(none, none, 2, 0.5)
        assert (ours.total, ours.false_negatives) == (1.0, 1.0)
        assert math.isnan(ours.localization)
        assert math.isnan(measure(np.array([0.5]), np.array([0.0]), 0, 0.5).total)
    # Only false detections: to show none is as good, and no error is above 1.
    assert metrics.optimal_lrp(np.array([0.5]), np.array([0.0]), 2, 0.5).total == 1.0
    assert metrics.lrp(np.array([0.5]), np.array([0.0]), 2, 0.5).total == 1.0
    with pytest.raises(ValueError, match=r"threshold is 1.0; expected a number in \[0, 1\)"):
        metrics.lrp(none, none, 2, 1.0)


def random_detections(seed, images):
    """Detections of a few images by us and for uq-detr; no crowds, which that does not know. It
    takes the first of equal IoUs and we, as pycocotools, the last: so none are equal."""
    rng = np.random.default_rng(seed)
    ours, theirs, truths, counts = [], [], [], 0
    for _ in range(images):
        boxes, _, truth = random_image(rng, int(rng.integers(0, 15)), int(rng.integers(0, 8)))
        boxes += rng.uniform(0, 0.5, boxes.shape)
        truth = objects(truth.boxes + rng.uniform(0, 0.5, truth.boxes.shape), truth.classes)
        scores, classes = rng.random(len(boxes)), rng.integers(0, 2, len(boxes))
        ours.append([match(boxes, scores, classes, truth, x) for x in (0.1, 0.5)])
        theirs.append(uq_detr.Detections(boxes, scores, classes))
        truths.append(uq_detr.GroundTruth(truth.boxes, truth.classes))
        counts += len(boxes)
    loose, strict = (concatenated(x) for x in zip(*ours))
    return loose, strict, theirs, truths, counts


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_as_uq_detr(seed, images):
    loose, strict, theirs, truths, counts = random_detections(seed, images)
    num_objects = sum(len(x.boxes) for x in truths)
    if num_objects:
        expected = uq_detr.lrp(theirs, truths, iou_threshold=0.5).score
        ours = metrics.lrp(strict.scores, strict.ious, num_objects, 0.5)
        assert ours.total == pytest.approx(expected)
    if not counts:
        return
    limits = strict.scores.min(), strict.scores.max()
    kind = {"tp_criterion": "greedy"}
    expected = uq_detr.dece(theirs, truths, iou_threshold=0.5, **kind).score
    assert metrics.calibration_error(strict.scores, strict.is_true, 25, limits) == pytest.approx(
        expected
    )
    # uq-detr's bins are those of the class, and its classes those of the detections.
    found = [
        metrics.calibration_error(
            loose.scores[x], loose.ious[x], 25, (loose.scores[x].min(), loose.scores[x].max())
        )
        for c in np.unique(loose.classes)
        if (x := loose.classes == c).any()
    ]
    expected = uq_detr.laece(theirs, truths, iou_threshold=0.1, **kind).score
    assert np.mean(found) == pytest.approx(expected)


def test_where_uq_detr_differs():
    """Its bins follow the scores: here each of two detections has one of its own, in ours both lie
    in (.48, .52], where their errors cancel."""
    scores, is_true = np.array([0.49, 0.51]), np.array([False, True])
    box, other = [0, 0, 10, 10], [20, 20, 30, 30]
    theirs = uq_detr.dece(
        [uq_detr.Detections(np.array([box, other]), scores, np.zeros(2))],
        [uq_detr.GroundTruth(np.array([other]), np.zeros(1))],
        tp_criterion="greedy",
    ).score
    assert theirs == pytest.approx(0.49)
    assert metrics.calibration_error(scores, is_true, 25, (0.49, 0.51)) == pytest.approx(0.49)
    assert metrics.calibration_error(scores, is_true) == pytest.approx(0.0)
