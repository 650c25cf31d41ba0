"""From a data loader's dicts to the ground truth of a batch. (What is refused: test_gfl.py.)"""

import torch

from gfocal._padding import Padding
from gfocal.modeling.ground_truth import ground_truth_of
from tests.helpers.tiny import make_input


def test_an_image_reaches_to_a_multiple_of_the_divisibility():
    """By hand: 65 x 96 px and divisibility 32 make 96 x 96."""
    inputs = [make_input(65, 96, [[1.0, 2, 3, 4]], [2]), make_input(64, 33)]
    sizes = [(65, 96), (64, 33)]
    truth = ground_truth_of(inputs, sizes, num_classes=3, padding=Padding(32))
    assert truth.image_sizes == [(96, 96), (64, 64)]
    assert ground_truth_of(inputs, sizes, num_classes=3).image_sizes == sizes
    square = ground_truth_of(inputs, sizes, num_classes=3, padding=Padding(32, square=100))
    assert square.image_sizes == [(128, 128)] * 2
    assert truth.counts == [1, 0]
    assert truth.classes[0].tolist() == [2]
    assert truth.boxes[0].tensor.tolist() == [[1, 2, 3, 4]]
    assert truth.ignore_regions == [None, None]
    assert torch.equal(inputs[0]["instances"].gt_boxes.tensor, truth.boxes[0].tensor)
