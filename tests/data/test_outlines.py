"""Outlines of masks: polygons that pycocotools turns into the same pixels."""

import numpy as np
import pytest
from pycocotools import mask as coco

from gfocal.data.outlines import outlines
from gfocal.data.shapes import draw


def filled(polygons, shape):
    if not polygons:
        return np.zeros(shape, bool)
    rows = [x.flatten().astype(float).tolist() for x in polygons]
    return coco.decode(coco.merge(coco.frPyObjects(rows, *shape))).astype(bool)


@pytest.mark.parametrize("seed", range(40))
def test_random_masks_to_the_pixel(seed):
    """With holes in holes, pixels that touch at a corner, and pixels at the margin."""
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 14, 2)) < rng.uniform(0.2, 0.95)
    np.testing.assert_array_equal(filled(outlines(mask), mask.shape), mask)


def test_corners_alone():
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:5] = True
    (square,) = outlines(mask)
    assert {*map(tuple, square.tolist())} == {(2, 1), (5, 1), (5, 4), (2, 4)} and len(square) == 4
    mask[2, 3] = False  # a ring is cut in two
    assert len(outlines(mask)) == 2
    assert outlines(np.zeros((3, 3), bool)) == []


def test_drawn_shapes():
    for drawing in (draw("val", index) for index in range(3)):
        for index in range(len(drawing.classes)):
            mask = drawing.visible == index
            np.testing.assert_array_equal(filled(outlines(mask), mask.shape), mask)
