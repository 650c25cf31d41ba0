import detectron2.data.transforms as T
import numpy as np
import pytest

from gfocal.engine.batching import padded, plan_batches, size_after


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (100, 1000), (37, 91)])
def test_the_size_is_that_of_the_resized_image(size):
    augmentations = T.AugmentationList([T.ResizeShortestEdge(80, 120), T.NoOpTransform()])
    inputs = T.AugInput(np.zeros((*size, 3), np.uint8))
    augmentations(inputs)
    assert size_after(augmentations, size) == inputs.image.shape[:2]
    assert size_after(T.AugmentationList([]), size) == size
    assert size_after(T.AugmentationList([T.RandomFlip(1.0)]), size) is None


def test_padded():
    assert padded((33, 64), 32) == (64, 64)
    assert padded((33, 64), 0) == (33, 64)


def test_equal_sizes_share_a_batch():
    a, b = (32, 64), (64, 32)
    assert plan_batches([a, b, a, a, None, b, a, None], 2) == [[0, 2], [1, 5], [3, 6], [4], [7]]
    assert plan_batches([a, b], 1) == [[0], [1]]
    assert plan_batches([], 3) == []
