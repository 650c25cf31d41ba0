"""Scores derived by hand. z is in units of hypot(std, 5 % of the extent)."""

import math

import numpy as np
import pytest

from gfocal.inspect.audit.judging import KINDS, judge, side_errors, std_scale
from gfocal.inspect.audit.matching import Annotated, Detected, Objects, group, match
from tests.inspect.audit.test_matching import boxes

SQUARE = [0, 0, 20, 20]
STD = math.sqrt(3)  # with 5 % of 20 pixels: hypot(sqrt(3), 1) = 2 pixels


def annotated(*rows):
    """Rows of (box, class)."""
    return Annotated(boxes(*(row[0] for row in rows)), np.array([row[1] for row in rows], int))


def objects(*rows, std=STD):
    """Rows of (box, scores of the classes)."""
    stds = None if std is None else np.full((len(rows), 4), float(std))
    scores = np.array([row[1] for row in rows], float).reshape(len(rows), -1 if rows else 2)
    return Objects(boxes(*(row[0] for row in rows)), scores, stds, np.arange(len(rows)))


def judged(truth, found, scale=1.0, **kwargs):
    return judge(truth, found, match(truth, found), scale, **kwargs)


def test_what_is_right():
    found = judged(annotated((SQUARE, 0)), objects((SQUARE, [0.8, 0])))
    assert found.missing == [0] and found.bad_side == [0] and found.wrong_class == [0]
    assert found.duplicate == [0] and found.spurious == pytest.approx([0.2**32])
    assert not found.sides.any() and found.twins == [-1] and found.others == [-1]


def test_missing():
    """Score 0.8; a mean standard deviation of 10 % of the extent divides by e; IoU 0.25 with an
    annotation takes a quarter."""
    found = judged(annotated(), objects((SQUARE, [0.8, 0]), std=2))
    assert found.missing == pytest.approx([0.8 / math.e])
    near = annotated(([0, 0, 10, 10], 1))
    found = judged(near, objects((SQUARE, [0.8, 0]), std=2))
    assert found.missing == pytest.approx([0.8 / math.e * 0.75])
    # Its own annotation counts twice.
    found = judged(annotated(([0, 0, 20, 10], 1)), objects((SQUARE, [0.8, 0]), std=2))
    assert found.missing == pytest.approx([0.8 * (1 - 0.5) ** 2 * math.exp(-1)])


def test_nothing_is_missing_in_a_crowd():
    one = objects((SQUARE, [0.8, 0]))
    assert judged(annotated(), one, crowds=boxes([0, 0, 20, 11])).missing == [0]
    assert judged(annotated(), one, crowds=boxes([0, 0, 20, 9])).missing > 0.3


def test_spurious():
    """A detection of score 0.9 with IoU 1/3 supports by 0.1."""
    found = judged(annotated((SQUARE, 0)), objects(([10, 0, 30, 20], [0, 0.9])))
    assert found.spurious == pytest.approx([0.9**32])
    assert judged(annotated((SQUARE, 0)), objects()).spurious == [1]
    assert judged(annotated(([5, 5, 5, 9], 0)), objects((SQUARE, [0.9, 0]))).spurious == [1]


def test_wrong_class():
    """Another class has 0.9, its own 0.1: ((1 + 0.8) / 2)^3."""
    found = judged(annotated((SQUARE, 0)), objects((SQUARE, [0.1, 0.9, 0.3])))
    assert found.wrong_class == pytest.approx([0.9**3]) and found.others == [0]
    # The object of another class beside it overlaps by 1/3: 0.3 against 0.1.
    pair = objects((SQUARE, [0.1, 0]), ([10, 0, 30, 20], [0, 0.9]))
    found = judged(annotated((SQUARE, 0)), pair)
    assert found.wrong_class == pytest.approx([0.6**3]) and found.others == [1]
    assert judged(annotated((SQUARE, 0)), objects((SQUARE, [0.9]))).wrong_class == [0]


def test_bad_side():
    """12 pixels are 6 units: suspect by half. A score of 1/16 weighs 1/2: sqrt(1/4)."""
    found = judged(annotated(([-12, 0, 20, 20], 0)), objects((SQUARE, [1 / 16, 0])))
    np.testing.assert_allclose(found.z, [[-6, 0, 0, 0]])
    assert found.sides.tolist() == [[True, False, False, False]]
    assert found.bad_side == pytest.approx([0.5])


def test_a_hidden_side_is_less_suspect():
    """Another annotation covers all between the two places of the side: half the weight."""
    truth = annotated(([-12, 0, 20, 20], 0), ([-12, 0, 0, 20], 1))
    found = judged(truth, objects((SQUARE, [1 / 16, 0])))
    assert found.bad_side == pytest.approx([math.sqrt(1 / 8), 0])


def test_another_box_is_no_bad_side():
    """Two sides off by 6 units: with one replaced IoU is 20/32, which weighs squared. Both are
    named."""
    found = judged(annotated(([-12, 0, 20, 32], 0)), objects((SQUARE, [1, 0])))
    assert found.sides.tolist() == [[True, False, False, True]]
    assert found.bad_side == pytest.approx([math.sqrt(0.5) * 20 / 32])


def test_without_stds_a_share_of_the_extent_counts():
    """scale times the extent, 2 pixels, in place of the standard deviation."""
    found = judged(annotated(([-12, 0, 20, 20], 0)), objects((SQUARE, [1, 0]), std=None), scale=0.1)
    z = 12 / math.hypot(2, 1)
    np.testing.assert_allclose(found.z, [[-z, 0, 0, 0]])
    unknown = judged(annotated(([-12, 0, 20, 20], 0)), objects((SQUARE, [1, 0]), std=None), None)
    np.testing.assert_allclose(unknown.z, found.z)


def test_duplicate():
    """IoU 0.8 counts fully. The object is the first's; of the two the second gets all."""
    truth = annotated((SQUARE, 0), ([0, 0, 20, 16], 0), ([0, 0, 20, 18], 1))
    found = judged(truth, objects((SQUARE, [0.5, 0])))
    np.testing.assert_allclose(found.duplicate, [0.5, 1, 0])
    assert found.twins.tolist() == [1, 0, -1]
    assert found.is_second.tolist() == [False, True, False]


def test_two_objects_are_no_duplicate():
    truth = annotated((SQUARE, 0), ([0, 0, 20, 16], 0))
    found = judged(truth, objects((SQUARE, [1, 0]), ([0, 0, 20, 16], [1, 0])))
    np.testing.assert_allclose(found.duplicate, [0, 0], atol=1e-12)


def test_of_two_equals_the_later_is_the_second():
    found = judged(annotated((SQUARE, 0), (SQUARE, 0)), objects())
    assert found.is_second.tolist() == [False, True]
    np.testing.assert_allclose(found.duplicate, [0.5, 1])


def test_std_scale():
    """The median of a normal |z| is 0.6745. Errors of mistakes don't count."""
    errors, stds = np.full((30, 4), 2 * 0.6745), np.ones((30, 4))
    errors[:5] = 1000
    assert std_scale([errors[:10], errors[10:]], [stds[:10], stds[10:]]) == pytest.approx(2)
    assert std_scale([errors[:19]], [stds[:19]]) is None
    assert std_scale([], []) is None
    assert std_scale([np.zeros((30, 4))], [stds]) is None  # annotations that are the detections


def test_sides_that_are_calibrated_on():
    """Of a sure match alone, with the extent in place of standard deviations."""
    truth = annotated(([1, 0, 20, 20], 0), ([40, 0, 60, 20], 0), ([80, 0, 100, 20], 0))
    found = objects(
        (SQUARE, [0.9, 0]), ([40, 0, 60, 20], [0.2, 0]), ([80, 0, 100, 45], [0.9, 0]), std=None
    )
    errors, stds = side_errors(truth, found, match(truth, found))
    np.testing.assert_array_equal(errors, [[1, 0, 0, 0]])
    np.testing.assert_array_equal(stds, [[20] * 4])


def scene(seed):
    rng = np.random.default_rng(seed)
    count, more = rng.integers(0, 12), rng.integers(0, 12)
    low = rng.uniform(0, 60, (count + more, 2))
    made = np.hstack([low, low + rng.uniform(0, 30, low.shape)])
    truth = Annotated(made[:count], rng.integers(0, 3, count))
    near = made + rng.normal(0, 2, made.shape)
    found = Detected(
        near,
        rng.integers(0, 3, len(near)),
        rng.uniform(0, 1, len(near)),
        rng.gamma(2, 1, near.shape),
    )
    return truth, group(found, 3), rng


@pytest.mark.parametrize("seed", range(40))
def test_scores_of_random_scenes(seed):
    """In [0, 1], finite, of every annotation and object."""
    truth, found, rng = scene(seed)
    for stds in (found.stds, None, np.zeros_like(found.stds)):
        scores = judged(truth, found._replace(stds=stds), rng.choice([None, 0.3, 3.0]))
        for kind in KINDS:
            score = getattr(scores, kind)
            assert len(score) == len(found.boxes if kind == "missing" else truth.boxes)
            assert np.isfinite(score).all() and (score >= 0).all() and (score <= 1).all(), kind


@pytest.mark.parametrize("seed", range(40))
def test_a_wide_distribution_is_no_accusation(seed):
    truth, found, _ = scene(seed)
    sharp = judged(truth, found)
    wide = judged(truth, found._replace(stds=2 * found.stds))
    assert (wide.bad_side <= sharp.bad_side).all()
    assert (wide.missing <= sharp.missing).all()
    suspect = sharp.bad_side > 0.01
    # Never more than before, and less where it counted.
    assert (wide.bad_side[suspect] < sharp.bad_side[suspect]).all()


def test_more_evidence_is_a_higher_score():
    """Of one image and one object, step by step."""

    def along(kind, truth, found):
        values = [float(getattr(judged(t, f), kind)[0]) for t, f in zip(truth, found)]
        assert values == sorted(values) and len({*values}) == len(values), kind

    steps = np.linspace(0.05, 0.95, 10)
    same = [annotated((SQUARE, 0))] * 10
    along("missing", [annotated()] * 10, [objects((SQUARE, [s, 0])) for s in steps])
    along("spurious", same, [objects((SQUARE, [1 - s, 0])) for s in steps])
    along("wrong_class", same, [objects((SQUARE, [0.01, s])) for s in steps])
    shifted = [annotated(([-10 * s, 0, 20, 20], 0)) for s in steps]
    along("bad_side", shifted, [objects((SQUARE, [0.8, 0]))] * 10)
    twins = [annotated((SQUARE, 0), ([0, 0, 20, 8 + 7 * s], 0)) for s in steps]
    along("duplicate", twins, [objects((SQUARE, [0.8, 0]))] * 10)
