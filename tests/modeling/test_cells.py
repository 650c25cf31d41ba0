"""Maps of cells, and whose they are."""

import torch
from detectron2.structures import Boxes

from gfocal.modeling.cells import cell_anchors, cells_of, centers_of, valid_background
from tests.helpers.tiny import truth_of


def boxes(*rows):
    return Boxes(torch.tensor(rows, dtype=torch.float32).view(-1, 4))


def test_whose_cell():
    """Stride 4, a map of 4 rows and 6 columns (16 x 24 px). Centres, pixels: (6, 6), (7, 7.5),
    (7, 5), (24, 8): right of the map; (12, -1): above it. The second image has none, the third one
    at (23.5, 15.5), the last pixel."""
    first = boxes([2, 4, 10, 8], [0, 0, 14, 15], [6, 4, 8, 6], [16, 0, 32, 16], [10, -12, 14, 10])
    truth = truth_of(
        [first, boxes(), boxes([23, 15, 24, 16])],
        [torch.tensor([2, 0, 2, 1, 1]), torch.tensor([], dtype=torch.int64), torch.tensor([1])],
    )
    centers = centers_of(truth, (4, 6), 4)
    assert centers.image_idxs.tolist() == [0, 0, 0, 2]
    assert centers.classes.tolist() == [2, 0, 2, 1]
    assert centers.cells.tolist() == [[1, 1], [1, 1], [1, 1], [5, 3]]
    # Of the three in one cell the last one has it. The first has its class's peak no more.
    assert centers.owns_cell.tolist() == [False, False, True, True]
    assert centers.owns_peak.tolist() == [False, True, True, True]
    assert centers.boxes[0].tolist() == [0.5, 1.0, 2.5, 2.0]
    widths, heights = centers.sizes
    assert widths.tolist() == [2.0, 3.5, 0.5, 0.25] and heights.tolist() == [1.0, 3.75, 0.5, 0.25]


def test_no_objects():
    centers = centers_of(truth_of([boxes(), boxes()]), (4, 6), 4)
    assert [len(x) for x in centers] == [0] * 6


def test_places():
    assert cells_of(2, 3, torch.device("cpu")).tolist() == [
        [0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1],
    ]  # fmt: skip
    anchors = cell_anchors((2, 3), 4, torch.device("cpu"))
    assert anchors.centers[4].tolist() == [6.0, 6.0] and anchors.level_sizes == [6]
    assert anchors.strides.tolist() == [4.0] * 6


def test_no_background_inside_regions():
    """A region over the first two columns: their middles are 2 and 6. The object's cell in it is
    valid. The second image has no region."""
    truth = truth_of([boxes([0, 0, 4, 4]), boxes()])
    centers = centers_of(truth, (2, 3), 4)
    assert valid_background(truth, centers, (2, 3), 4) is None
    truth = truth._replace(ignore_regions=[boxes([0, 0, 7, 8]), None])
    valid = valid_background(truth, centers, (2, 3), 4)
    assert valid.tolist() == [
        [[[True, False, True], [False, False, True]]],
        [[[True, True, True], [True, True, True]]],
    ]
