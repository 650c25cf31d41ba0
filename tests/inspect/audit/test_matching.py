import itertools

import numpy as np
import pytest

from gfocal.inspect.audit.matching import Annotated, Detected, group, match, pairwise_iou


def boxes(*rows):
    return np.array(rows, float).reshape(-1, 4)


def detected(*rows, stds=None):
    """Rows of (box, class, score)."""
    return Detected(
        boxes(*(row[0] for row in rows)),
        np.array([row[1] for row in rows], int),
        np.array([row[2] for row in rows], float),
        stds,
    )


def test_iou():
    a = boxes([0, 0, 10, 10], [0, 0, 0, 10])
    b = boxes([0, 0, 10, 5], [5, 0, 15, 10], [20, 20, 30, 30])
    np.testing.assert_allclose(pairwise_iou(a, b), [[0.5, 1 / 3, 0], [0, 0, 0]])
    assert pairwise_iou(a, b[:0]).shape == (2, 0)


def test_an_object_takes_the_detections_of_other_classes():
    found = detected(
        ([0, 0, 10, 9], 1, 0.3),
        ([0, 0, 10, 10], 0, 0.8),
        ([0, 0, 10, 5], 2, 0.2),
        stds=np.eye(3, 4),
    )
    objects = group(found, 3)
    # The second is best; the first overlaps it with IoU 0.9, the third with 0.5.
    assert objects.detections.tolist() == [1, 2]
    np.testing.assert_allclose(objects.class_scores, [[0.8, 0.3, 0], [0, 0, 0.2]])
    np.testing.assert_allclose(objects.scores, [0.8, 0.2])
    np.testing.assert_array_equal(objects.stds, np.eye(3, 4)[[1, 2]])
    np.testing.assert_array_equal(objects.boxes, found.boxes[[1, 2]])


def test_nothing():
    objects = group(detected(), 2)
    assert objects.class_scores.shape == (0, 2) and objects.scores.shape == (0,)
    annotated = Annotated(boxes([0, 0, 1, 1]), np.array([1]))
    assert match(annotated, objects).objects.tolist() == [-1]
    nobody = Annotated(boxes(), np.zeros(0, int))
    found = group(detected(([0, 0, 1, 1], 0, 0.5)), 2)
    assert match(nobody, found).ious.shape == (0, 1)
    assert match(nobody, objects).objects.tolist() == []


def test_a_detection_without_area_is_an_object_too():
    assert len(group(detected(([3, 3, 3, 8], 0, 0.5), ([3, 3, 3, 8], 1, 0.4)), 2).boxes) == 2


def test_one_to_one():
    """Greedily the first annotation would take the first object; together both have one."""
    annotated = Annotated(boxes([0, 0, 10, 10], [0, 0, 10, 8]), np.array([0, 0]))
    objects = group(detected(([0, 0, 10, 10], 0, 0.9), ([0, 4, 10, 14], 0, 0.9)), 1)
    # IoU: [[1, 6/14], [0.8, 4/14]], the last too small: so the second gets the first object only
    # if the first annotation goes with the second object, 0.8 + 0.43 > 1.
    assert match(annotated, objects).objects.tolist() == [1, 0]


def test_a_wrong_class_finds_its_object():
    annotated = Annotated(boxes([0, 0, 10, 10]), np.array([1]))
    objects = group(detected(([0, 0, 10, 10], 0, 0.9)), 2)
    assert match(annotated, objects).objects.tolist() == [0]


@pytest.mark.parametrize("seed", range(20))
def test_the_best_of_all_pairings(seed):
    """Compared with all permutations, on crowded boxes."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 12, (5, 2))
    made = np.hstack([low, low + rng.uniform(4, 12, (5, 2))])
    other = made + rng.normal(0, 1.5, made.shape)
    annotated = Annotated(made, rng.integers(0, 2, 5))
    objects = group(Detected(other, rng.integers(0, 2, 5), rng.uniform(0.1, 1, 5)), 2)
    found = match(annotated, objects)
    own = objects.class_scores[:, annotated.classes].T
    gains = np.where(found.ious >= 0.3, found.ious * (own + objects.scores) / 2, 0)
    count = max(gains.shape)
    square = np.zeros((count, count))
    square[: gains.shape[0], : gains.shape[1]] = gains
    best = max(square[range(count), p].sum() for p in itertools.permutations(range(count)))
    chosen = np.flatnonzero(found.objects >= 0)
    assert gains[chosen, found.objects[chosen]].sum() == pytest.approx(best)
    assert len({*found.objects[chosen]}) == len(chosen)
    assert (gains[chosen, found.objects[chosen]] > 0).all()
