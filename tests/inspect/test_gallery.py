"""Which images a sheet of pictures shows. (The pictures themselves: test_pictures.py.)"""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from gfocal.inspect import gallery


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """The images whose distributions are drawn, by the value of their pixels."""
    found = []

    def draw(image, *_, **__):
        found.append(int(image[0, 0, 0]))
        return image

    monkeypatch.setattr(gallery, "draw_detections", draw)
    monkeypatch.setattr(gallery, "draw_box_distributions", draw)
    return found


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([1, 3, 2, 2], [1, 2, 3]),  # the most boxes first, then the first image
        ([3, 9, 4, 5], [0, 1, 2]),  # a row has space for three
        ([0, 1], [1]),
    ],
)
def test_images_with_the_most_boxes_come_first(tmp_path, drawn, boxes, expected):
    sheet = gallery.PictureSheet(str(tmp_path), None, 0.5, distributions=True)
    for index, count in enumerate(boxes):
        instances = Instances(
            (8, 8),
            pred_boxes=Boxes(torch.zeros(count + 5, 4)),
            scores=torch.tensor([0.6] * count + [0.4] * 5),  # five lie below the lowest score
        )
        sheet.add(str(index), np.full((8, 8, 3), index, np.uint8), instances)
    drawn.clear()
    assert sheet.close() == []
    assert drawn == expected
    assert {file.name for file in tmp_path.iterdir()} == {"predictions.png", "distributions.png"}


def test_a_sheet_that_would_be_empty(tmp_path, drawn):
    sheet = gallery.PictureSheet(str(tmp_path), None, 0.5, distributions=True)
    assert sheet.close() == ["no distributions.png: nothing scores at least 0.5"]
    assert list(tmp_path.iterdir()) == []
