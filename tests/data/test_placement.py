import detectron2.data.transforms as T
import numpy as np
import pytest

from gfocal.data.placement import (
    CenterPadTransform,
    PlaceTransform,
    apply_regions,
    content_of,
    inside,
)

# Of an image of 4 x 6, rows 1..3 and columns 2..5, at row 2 and column 1 of a new one of 7 x 5.
PLACE = PlaceTransform((4, 6), (2, 1, 5, 3), (7, 5), (1, 2), fill=(1, 2, 3))


def test_an_image_by_hand():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    placed = PLACE.apply_image(image)
    assert placed.shape == (7, 5, 3) and placed.dtype == np.uint8
    assert (placed[2:4, 1:4] == image[1:3, 2:5]).all()
    placed[2:4, 1:4] = (1, 2, 3)
    assert (placed == (1, 2, 3)).all()
    segmentation = PLACE.apply_segmentation(image[:, :, 0])
    assert (segmentation[2:4, 1:4] == image[1:3, 2:5, 0]).all()
    assert (segmentation == 255).sum() == 35 - 6


def test_a_colour_that_integers_cannot_hold_makes_the_image_float32():
    image = np.full((4, 6, 3), 7, np.uint8)
    for fill, dtype in ((103.5, np.float32), (103.0, np.uint8), (300, np.float32), (-1, "f4")):
        placed = PlaceTransform((4, 6), (0, 0, 6, 4), (5, 6), (0, 1), fill).apply_image(image)
        assert placed.dtype == dtype
        assert (placed[0] == fill).all() and (placed[1:] == 7).all()
    assert PLACE.apply_image(image.astype(np.float64)).dtype == np.float64


def test_a_colour_of_other_channels_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) .* for 3 channels, and the image has 1"):
        PLACE.apply_image(np.zeros((4, 6, 1), np.uint8))


def test_boxes_by_hand():
    """The crop is x 2..5, y 1..3; it moves by x -1 and y +1."""
    boxes = np.array(
        [
            [2.0, 1.0, 4.0, 2.0],  # inside
            [0.0, 0.0, 6.0, 4.0],  # its centre (3, 2) is inside: clipped to the new image, 5 x 7
            [0.0, 1.0, 4.0, 3.0],  # its centre x, 2, is the crop's edge: dropped
            [0.0, 1.0, 4.25, 3.0],
            [5.0, 3.0, 6.0, 4.0],
            [3.0, 2.0, 3.0, 2.0],  # without area, and stays so
            [-9.0, 1.0, 5.0, 3.0],  # in the image its centre is 2.5
        ]
    )
    before = boxes.copy()
    expected = [
        [1, 2, 3, 3],
        [0, 1, 5, 5],
        [0, 0, 0, 0],
        [0, 2, 3.25, 4],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 2, 4, 4],
    ]
    assert PLACE.apply_box(boxes).tolist() == expected
    regions = PLACE.apply_region(boxes)
    assert regions[[0, 1, 3, 6]].tolist() == [expected[i] for i in (0, 1, 3, 6)]
    assert regions[[2, 4]].tolist() == [[0, 2, 3, 4], [4, 4, 5, 5]]  # kept
    assert (boxes == before).all()
    assert PLACE.apply_box(np.zeros((0, 4))).shape == (0, 4)
    assert PLACE.apply_coords(np.array([[2.0, 1.0]])).tolist() == [[1, 2]]


def test_the_centre_on_an_edge_is_not_inside():
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4.1, 4.1], [2, 2, 2, 9], [8, 8, 12, 12]], dtype=float)
    assert inside(boxes, (2, 2, 10, 10)).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("crop", "size", "offset"),
    [
        ((0, 0, 7, 4), (9, 9), (0, 0)),
        ((2, 2, 2, 4), (9, 9), (0, 0)),
        ((-1, 0, 2, 2), (9, 9), (0, 0)),
        ((0, 0, 6, 4), (3, 9), (0, 0)),
        ((0, 0, 6, 4), (9, 9), (4, 0)),
        ((0, 0, 6, 4), (9, 9), (-1, 0)),
    ],
)
def test_what_is_not_inside_is_refused(crop, size, offset):
    with pytest.raises(ValueError, match=r"of an image of \(4, 6\), at .*expected a part of both"):
        PlaceTransform((4, 6), crop, size, offset)


def test_a_dropped_box_stays_without_area():
    """Whatever comes after."""
    transforms = T.TransformList(
        [
            PLACE,
            T.HFlipTransform(5),
            T.ResizeTransform(7, 5, 20, 30),
            PlaceTransform((20, 30), (0, 0, 30, 20), (40, 40), (5, 5)),
        ]
    )
    boxes = transforms.apply_box(np.array([[0, 0, 2, 2], [2, 1, 4, 3]], dtype=float))
    assert (boxes[0, 2:] <= boxes[0, :2]).any()
    # x 1..3 and y 2..4 of 5 x 7; mirrored, x 2..4; times 6 and 20/7; moved by 5
    assert boxes[1] == pytest.approx([17, 5 + 40 / 7, 29, 5 + 80 / 7])


def test_regions_follow_transforms_of_others_too():
    transforms = T.TransformList([PLACE, T.HFlipTransform(5)])
    regions = apply_regions(transforms, np.array([[5.0, 3.0, 6.0, 4.0]]))
    assert regions.tolist() == [[0, 4, 1, 5]]


@pytest.mark.parametrize(
    ("source", "size", "border"),
    [
        ((480, 640), (512, 672), (16, 16)),
        ((1, 1), (32, 32), (16, 16)),
        ((127, 126), (127, 127), (0, 0)),
        ((427, 641), (511, 767), (42, 63)),  # 255 - 213, 383 - 320
    ],
)
def test_where_the_content_is(source, size, border):
    padding = CenterPadTransform(source, size)
    assert content_of(T.TransformList([padding])) == {"border": border, "content_size": source}
    image = np.random.default_rng(0).integers(1, 256, (*source, 3), dtype=np.uint8)
    placed = padding.apply_image(image)
    top, left = border
    assert placed.shape == (*size, 3)
    assert (placed[top : top + source[0], left : left + source[1]] == image).all()
    assert (placed > 0).sum() == image.size
    box = padding.apply_box(np.array([[0.0, 0.0, source[1], source[0]]]))
    assert box.tolist() == [[left, top, left + source[1], top + source[0]]]


def test_padding_that_is_not_the_last_is_refused():
    padding = CenterPadTransform((4, 6), (32, 32))
    assert content_of(T.TransformList([T.NoOpTransform()])) == {}
    for transforms in ([padding, T.HFlipTransform(32)], [padding, padding]):
        with pytest.raises(ValueError, match=r"\['CenterPadTransform', .*one CenterPad, as the la"):
            content_of(T.TransformList(transforms))
