"""The flat structures and the maps between them."""

import pytest
import torch
from detectron2.structures import Boxes

from gfocal.structures import DenseAnchors, DensePredictions, DenseTargets


def grid(height, width, stride, side):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centers = torch.stack([x, y], dim=-1).view(-1, 2).float() * stride
    return Boxes(torch.cat([centers - side / 2, centers + side / 2], dim=1))


def test_anchors_flatten_levels_in_order():
    anchors = DenseAnchors.from_levels(
        [grid(2, 3, 8, 64), grid(1, 2, 16, 128)], [(2, 3), (1, 2)], [8, 16]
    )
    assert anchors.strides.tolist() == [8.0] * 6 + [16.0] * 2
    assert anchors.level_sizes == [6, 2]
    # rows first: x runs fastest
    assert anchors.centers.tolist()[:4] == [[0, 0], [8, 0], [16, 0], [0, 8]]
    assert anchors.centers.tolist()[6:] == [[0, 0], [16, 0]]
    assert anchors.boxes[0].tolist() == [-32, -32, 32, 32]


def test_inside_counts_the_columns_that_an_image_reaches():
    # stride 8, 2 x 3 locations: an image of height 8 and width 17 reaches ceil(8/8) = 1 row and
    # ceil(17/8) = 3 columns; one of 9 x 16 reaches 2 rows and 2 columns
    anchors = DenseAnchors.from_levels([grid(2, 3, 8, 64)], [(2, 3)], [8])
    inside = anchors.inside([(8, 17), (9, 16)]).view(2, 2, 3)
    assert inside[0].tolist() == [[True, True, True], [False, False, False]]
    assert inside[1].tolist() == [[True, True, False], [True, True, False]]


def test_anchor_errors():
    with pytest.raises(ValueError, match="level 0 is 2 x 3 and has 12 anchors"):
        DenseAnchors.from_levels([Boxes(torch.zeros(12, 4))], [(2, 3)], [8])
    with pytest.raises(ValueError, match="1 levels of anchors, 1 of shapes and 2 of strides"):
        DenseAnchors.from_levels([Boxes(torch.zeros(6, 4))], [(2, 3)], [8, 16])


def test_targets_from_matches():
    boxes = [Boxes(torch.tensor([[1.0, 1, 2, 2], [3, 3, 4, 4]])), Boxes(torch.zeros(0, 4))]
    boxes.append(Boxes(torch.tensor([[5.0, 5, 6, 6]])))
    classes = [torch.tensor([4, 2]), torch.zeros(0, dtype=torch.int64), torch.tensor([0])]
    matched = torch.tensor([[1, -1, 0], [-1, -2, -1], [0, -2, -1]])
    targets = DenseTargets.from_matches(matched, boxes, classes, num_classes=7)
    assert targets.labels.tolist() == [[2, 7, 4], [7, -1, 7], [0, -1, 7]]
    assert targets.boxes[0, 0].tolist() == [3, 3, 4, 4]
    assert targets.boxes[0, 2].tolist() == [1, 1, 2, 2]
    assert targets.boxes[2, 0].tolist() == [5, 5, 6, 6]


def test_joint_logits_without_quality_are_the_class_logits():
    cls = torch.randn(1, 3, 2)
    assert DensePredictions(cls, torch.zeros(1, 3, 4, 17)).joint_logits() is cls
    quality = torch.randn(1, 3, 1)
    joint = DensePredictions(cls, torch.zeros(1, 3, 4, 17), quality).joint_logits()
    torch.testing.assert_close(joint.sigmoid(), cls.sigmoid() * quality.sigmoid())
