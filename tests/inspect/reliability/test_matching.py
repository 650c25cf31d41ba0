"""Matching by hand, and against pycocotools on random boxes with crowds and equal scores."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gfocal.inspect.reliability.matching import Objects, concatenated, ious_of, match


def objects(boxes, classes=None, crowds=None, areas=None):
    boxes = np.array(boxes, float).reshape(-1, 4)
    count = len(boxes)
    return Objects(
        boxes,
        np.zeros(count, int) if classes is None else np.array(classes),
        np.zeros(count, bool) if crowds is None else np.array(crowds),
        (boxes[:, 2:] - boxes[:, :2]).prod(1) if areas is None else np.array(areas, float),
    )


def found(boxes, scores, truth, threshold=0.5, classes=None):
    boxes = np.array(boxes, float).reshape(-1, 4)
    classes = np.zeros(len(boxes), int) if classes is None else np.array(classes)
    return match(boxes, np.array(scores, float), classes, truth, threshold)


# IoU with A: 0.8 and 0.6. With B: 0 and 0.
A, B = [0, 0, 10, 10], [20, 0, 30, 10]
A80, A60 = [0, 0, 10, 8], [0, 0, 10, 6]


def test_the_best_scored_detection_chooses_first():
    ours = found([A80, A60, B], [0.3, 0.9, 0.5], objects([A, B], areas=[77, 88]))
    np.testing.assert_array_equal(ours.scores, [0.9, 0.5, 0.3])
    np.testing.assert_array_equal(ours.kept, [1, 2, 0])
    np.testing.assert_array_equal(ours.objects, [0, 1, -1])  # A80 comes too late
    np.testing.assert_allclose(ours.ious, [0.6, 1.0, 0.0])
    # The annotated area of the object; the box's own 10 x 8 where there is none.
    np.testing.assert_array_equal(ours.areas, [77, 88, 80])
    np.testing.assert_array_equal(ours.is_true, [True, True, False])


def test_another_class_and_a_small_overlap_are_no_match():
    truth = objects([A, B], classes=[0, 1])
    assert found([A], [0.5], truth, classes=[1]).objects.tolist() == [-1]
    assert found([A60], [0.5], truth, threshold=0.6).objects.tolist() == [0]
    assert found([A60], [0.5], truth, threshold=0.61).objects.tolist() == [-1]


def test_a_threshold_of_0_still_needs_an_overlap():
    sliver = [9, 9, 19, 19]  # 1 of 100 + 100 - 1 pixels
    truth = objects([A, B], crowds=[False, True])
    ours = found([sliver, [50, 50, 60, 60]], [0.9, 0.8], truth, threshold=0.0)
    np.testing.assert_allclose(ours.ious, [1 / 199, 0])
    assert ours.objects.tolist() == [0, -1]


def test_of_equal_ious_the_last_object_is_taken():
    """As in pycocotools, see below. The detection has an IoU of 1/3 with each neighbour."""
    left, right = [0, 0, 10, 10], [10, 0, 20, 10]
    ours = found([[5, 0, 15, 10]], [0.5], objects([left, right]), threshold=0.3)
    assert ours.objects.tolist() == [1]


def test_detections_of_a_crowd_are_left_out():
    crowd = [0, 0, 100, 100]
    truth = objects([crowd, A, crowd], classes=[0, 0, 1], crowds=[True, False, True])
    outside = [90, 90, 110, 100]  # half of it is inside
    far = [95, 90, 115, 100]  # a quarter
    boxes, scores = [A, A80, [50, 50, 60, 60], outside, far], [0.9, 0.8, 0.7, 0.6, 0.5]
    ours = found(boxes, scores, truth)
    # The first has an object of its own; the next three are of the crowd.
    np.testing.assert_array_equal(ours.scores, [0.9, 0.5])
    np.testing.assert_array_equal(ours.objects, [1, -1])
    np.testing.assert_array_equal(ours.kept, [0, 4])


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_nothing_on_either_side(threshold):
    none = np.zeros((0, 4))
    assert found(none, [], objects(none), threshold).ious.shape == (0,)
    assert found(none, [], objects([A]), threshold).ious.shape == (0,)
    ours = found([A], [0.5], objects(none), threshold)
    assert (ours.objects.tolist(), ours.areas.tolist()) == ([-1], [100])


def test_boxes_without_area():
    point = [5, 5, 5, 5]
    np.testing.assert_array_equal(ious_of(np.array([point]), np.array([A, point])), [[0, 0]])
    assert found([point], [0.5], objects([A, point]), 0.0).objects.tolist() == [-1]


def test_images_in_a_row():
    parts = [found([A], [0.5], objects([A])), found([A, B], [0.2, 0.4], objects([B]))]
    ours = concatenated(parts)
    np.testing.assert_array_equal(ours.image_idxs, [0, 1, 1])
    np.testing.assert_array_equal(ours.scores, [0.5, 0.4, 0.2])
    np.testing.assert_array_equal(ours.objects, [0, 0, -1])


def random_image(rng, detections, count):
    """Boxes on a coarse grid, so that IoUs and scores are often equal."""

    def boxes(n):
        corner, size = rng.integers(0, 5, (n, 2)), rng.integers(2, 6, (n, 2))
        return np.concatenate([corner, corner + size], axis=1).astype(float)

    truth = objects(boxes(count), rng.integers(0, 2, count), rng.random(count) < 0.25)
    return boxes(detections), rng.integers(1, 6, detections) / 8, truth


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(0, 12), st.integers(0, 8), st.sampled_from([0.3, 0.5]))
def test_as_pycocotools(seed, detections, count, threshold):
    rng = np.random.default_rng(seed)
    boxes, scores, truth = random_image(rng, detections, count)
    classes = rng.integers(0, 2, detections)
    ours = match(boxes, scores, classes, truth, threshold)

    def xywh(box):
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": 1}],
        "categories": [{"id": 0}, {"id": 1}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": int(c), "bbox": xywh(box)}
            | {"area": float(area), "iscrowd": int(crowd)}
            for i, (box, c, crowd, area) in enumerate(zip(*truth))
        ],
    }
    results = [
        {"image_id": 1, "category_id": int(c), "bbox": xywh(box), "score": float(score)}
        for box, c, score in zip(boxes, classes, scores)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        if not results:
            assert not len(ours.scores)
            return
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([threshold])
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.evaluate()
    theirs = {}
    for image in evaluation.evalImgs:
        if image is None:
            continue
        matches, ignored = image["dtMatches"][0], image["dtIgnore"][0]
        for i, m, leave in zip(image["dtIds"], matches, ignored):
            if not leave:
                theirs[i - 1] = int(m) - 1
    assert dict(zip(ours.kept.tolist(), ours.objects.tolist())) == theirs
