"""The flat structures and the maps between them."""

import pytest
import torch
from detectron2.structures import Boxes

from gfocal.matchers import check_matches
from gfocal.structures import (
    DenseAnchors,
    DensePredictions,
    DenseTargets,
    GroundTruth,
    Matches,
)


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
    truth = GroundTruth(boxes, classes)
    targets = DenseTargets.from_matches(Matches(matched), truth, num_classes=7)
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


def test_decode_by_hand():
    """From (8, 0) of stride 8 and (16, 0) of stride 16, a side lies so many strides away."""
    anchors = DenseAnchors.from_levels(
        [grid(1, 2, 8, 64), grid(1, 2, 16, 128)], [(1, 2), (1, 2)], [8, 16]
    )
    idxs = torch.tensor([1, 3])
    distances = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 0.5, 2.0, 0.0]])
    boxes = anchors.decode(distances, idxs)
    assert boxes.tolist() == [[0, -16, 32, 32], [0, -8, 48, 0]]
    assert anchors.encode(boxes, idxs).tolist() == distances.tolist()


def test_encode_and_decode_are_inverses():
    anchors = DenseAnchors.from_levels([grid(4, 5, 8, 64)], [(4, 5)], [8])
    idxs = torch.randint(0, 20, (50,))
    distances = torch.randn(50, 4).double()
    torch.testing.assert_close(anchors.encode(anchors.decode(distances, idxs), idxs), distances)


def two_images():
    anchors = DenseAnchors.from_levels([grid(1, 3, 8, 64)], [(1, 3)], [8])
    boxes = [Boxes(torch.tensor([[1.0, 1, 2, 2], [3, 3, 4, 4]])), Boxes(torch.zeros(0, 4))]
    return anchors, GroundTruth(boxes, [torch.tensor([4, 2]), torch.zeros(0, dtype=torch.int64)])


def my_matcher(anchors, truth, predictions):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("idxs", "error", "message"),
    [
        ([[2, -1, 0], [-1, -1, -1]], ValueError, "location 0 of image 0 .* index 2; .* 2 boxes"),
        ([[0, -1, 0], [-1, 0, -1]], ValueError, "location 1 of image 1 .* index 0; .* 0 boxes"),
        ([[0, -1, -3], [-1, -1, -1]], ValueError, "location 2 of image 0 .* index -3"),
        ([[0, -1], [-1, -1]], ValueError, r"shape \(2, 2\); expected .* \(2, 3\)"),
        ([[0.0, -1, 1], [-1, -1, -1]], TypeError, "torch.float32; expected int64"),
    ],
)
def test_a_faulty_matcher_is_named(idxs, error, message):
    with pytest.raises(error, match=f"matcher my_matcher.*{message}"):
        check_matches(Matches(torch.tensor(idxs)), *two_images(), my_matcher)


def test_a_quality_of_another_shape_is_refused():
    matches = Matches(torch.full((2, 3), -1), quality=torch.ones(2, 2))
    with pytest.raises(ValueError, match="the quality of matcher my_matcher"):
        check_matches(matches, *two_images(), my_matcher)


def test_right_matches_pass():
    matches = Matches(torch.tensor([[0, 1, -1], [-1, -2, -1]]), torch.ones(2, 3))
    check_matches(matches, *two_images(), my_matcher)


def test_predictions_with_other_tensors():
    representation = torch.nn.Identity()
    cls, box = torch.randn(1, 3, 2, requires_grad=True), torch.randn(1, 3, 4, 5)
    for quality in (None, torch.randn(1, 3, 1)):
        predictions = DensePredictions(cls, box, quality, representation)
        assert [x is y for x, y in zip(predictions.tensors, (cls, box, quality))] == [True] * len(
            predictions.tensors
        )
        detached = predictions.detach()
        assert not detached.cls_logits.requires_grad
        assert torch.equal(detached.cls_logits, cls)
        assert detached.box_representation is representation
        assert (detached.quality_logits is None) == (quality is None)


def test_predictions_that_nobody_can_read():
    with pytest.raises(ValueError, match="have no box_representation"):
        DensePredictions(torch.zeros(1, 1, 1), torch.zeros(1, 1, 4, 1)).distances_of(
            torch.zeros(1, 4, 1)
        )
