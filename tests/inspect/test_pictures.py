import itertools
from types import SimpleNamespace

import matplotlib.colors
import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from matplotlib.figure import Figure

from gfocal.inspect import (
    draw_box_distributions,
    draw_detections,
    draw_grid,
    draw_training_image,
    pictures,
)

NAMES = SimpleNamespace(thing_classes=["cat", "dog"])


def detections(size=(60, 80), num=2, bins=5):
    """Boxes of 30 x 20 pixels, with distributions that peak at their sides."""
    boxes = torch.tensor([[10.0, 20.0, 40.0, 40.0], [45.0, 30.0, 75.0, 50.0]])[:num]
    offsets = torch.arange(bins) * 5.0
    centers = torch.cat([boxes[:, :2] + boxes[:, 2:]] * 2, dim=1) / 2
    edges = centers[..., None] + torch.tensor([-1.0, -1.0, 1.0, 1.0])[:, None] * offsets
    probs = torch.softmax(-(edges - boxes[..., None]).abs(), dim=-1)
    return Instances(
        size,
        pred_boxes=Boxes(boxes),
        scores=torch.tensor([0.9, 0.6])[:num],
        pred_classes=torch.arange(2)[:num],
        pred_box_distributions=probs,
        bin_edges=edges,
    )


def color_mask(picture, color):
    """Pixels of a colour."""
    rgb = np.array(matplotlib.colors.to_rgb(color)) * 255
    return np.abs(picture.astype(float) - rgb).max(axis=2) < 12


def test_detections_are_drawn_where_they_are():
    image = np.full((60, 80, 3), 255, np.uint8)
    picture = draw_detections(image, detections(num=1), NAMES)
    assert picture.shape == (480, 640, 3)  # 8 times as large
    assert picture.dtype == np.uint8
    mask = color_mask(picture, pictures._CLASS_COLORS[0])
    below_label = mask[170:]  # the label is above the box
    rows, columns = np.flatnonzero(below_label.any(1)) + 170, np.flatnonzero(below_label.any(0))
    assert abs(columns[0] - 10 * 8) <= 2
    assert abs(columns[-1] - 40 * 8) <= 2
    assert abs(rows[-1] - 40 * 8) <= 2
    assert mask[20 * 8, 11 * 8 : 39 * 8].mean() > 0.9  # the upper side
    assert not mask[22 * 8 : 38 * 8, 12 * 8 : 38 * 8].any()  # nothing inside


def test_threshold_names_and_ground_truth():
    image = np.full((60, 80, 3), 200, np.uint8)
    plain = draw_detections(image, detections()[:0], NAMES)
    assert (plain == 200).all()
    assert np.array_equal(draw_detections(image, detections(), NAMES, 0.95), plain)
    one, two = (draw_detections(image, detections(), NAMES, t) for t in (0.7, 0.5))
    assert (one != plain).any()
    assert (two != one).any()
    assert np.array_equal(one, draw_detections(image, detections(num=1), NAMES))
    boxes, labels, colors, shown = pictures._boxes_and_labels(detections(), NAMES, 0.5)
    assert shown == [0, 1]
    assert labels == ["cat 0.90", "dog 0.60"]
    assert len(set(colors)) == 2
    assert pictures._boxes_and_labels(detections(), None, 0.5)[1][0] == "class 0 0.90"
    truth = Instances((60, 80), gt_boxes=Boxes(boxes), gt_classes=torch.tensor([0, 1]))
    assert pictures._boxes_and_labels(truth, NAMES, 0.5)[1] == ["cat", "dog"]
    large = np.zeros((700, 900, 3), np.uint8)
    assert draw_detections(large, detections()[:0]).shape == large.shape


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((8, 8, 3), np.float32), TypeError),
        ([[0]], TypeError),
        (np.zeros((8, 8), np.uint8), ValueError),
        (np.zeros((8, 8, 4), np.uint8), ValueError),
        (np.zeros((0, 8, 3), np.uint8), ValueError),
    ],
)
def test_what_is_no_image_is_refused(image, error):
    for draw in (draw_detections, draw_box_distributions):
        with pytest.raises(error, match=r"\(H, W, 3\)"):
            draw(image, detections())


def test_bars_stand_at_the_pixels_of_their_bins():
    figure = Figure()
    cell = figure.add_gridspec(1, 1)[0]
    instances = detections(num=1)
    box = instances.pred_boxes.tensor[0].numpy()
    probs, edges = instances.pred_box_distributions[0].numpy(), instances.bin_edges[0].numpy()
    image = np.zeros((60, 80, 3), np.uint8)
    pictures._draw_distribution_panel(figure, cell, image, box, "t", probs, edges)
    picture, below, beside = figure.axes
    assert below.get_xlim() == picture.get_xlim()
    assert beside.get_ylim() == picture.get_ylim()
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in below.patches]
    expected = np.concatenate([edges[[0, 2]].reshape(-1, 1), probs[[0, 2]].reshape(-1, 1)], axis=1)
    np.testing.assert_allclose(bars, expected, rtol=1e-5)
    bars = [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in beside.patches]
    expected = np.concatenate([edges[[1, 3]].reshape(-1, 1), probs[[1, 3]].reshape(-1, 1)], axis=1)
    np.testing.assert_allclose(bars, expected, rtol=1e-5)
    (x0, x1), (y1, y0) = picture.get_xlim(), picture.get_ylim()
    assert x0 < box[0] < box[2] < x1
    assert y0 < box[1] < box[3] < y1


@pytest.mark.parametrize("sign", [1, -1])
def test_bars_of_unequal_bins_touch_none_of_the_others(sign):
    picture, margin = Figure().subplots(1, 2)
    edges, probs = sign * np.array([0.0, 10.0, 12.0, 20.0]), np.array([0.1, 0.2, 0.3, 0.4])
    pictures._draw_side(picture, margin, 0, np.array([11.0, 0, 30, 30]), probs, edges)
    spans = sorted(sorted((b.get_x(), b.get_x() + b.get_width())) for b in margin.patches)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
    assert all(a < edge < b for (a, b), edge in zip(spans, sorted(edges)))
    np.testing.assert_allclose(sum(b - a for a, b in spans), 0.9 * (20 + 5 + 4))


def test_box_distributions_picture():
    image = np.random.RandomState(0).randint(0, 255, (60, 80, 3)).astype(np.uint8)
    both = draw_box_distributions(image, detections(), NAMES)
    one = draw_box_distributions(image, detections(), NAMES, threshold=0.7)
    best = draw_box_distributions(image, detections(), NAMES, max_boxes=1)
    assert np.array_equal(one, best)
    assert both.shape[1] > one.shape[1]  # one panel more
    for color in pictures.SIDE_COLORS:
        # Several pixels of its bars or lines.
        assert color_mask(one, color).sum() > 100
    nothing = draw_box_distributions(image, detections(), NAMES, threshold=0.99)
    assert nothing.shape[1] < one.shape[1]
    # Many bins, all alike: no bin holds much probability.
    flat = detections(num=1, bins=101)
    flat.pred_box_distributions = torch.full_like(flat.pred_box_distributions, 1 / 101)
    assert draw_box_distributions(image, flat).shape == one.shape
    plain = detections()
    plain.remove("pred_box_distributions")
    with pytest.raises(ValueError, match="detect_with_distributions"):
        draw_box_distributions(image, plain)


def test_grid():
    pictures = [np.full((48, 64, 3), value, np.uint8) for value in (50, 100, 150)]
    sheet = draw_grid(pictures, ["a", "b", "c"], cell_width=100)
    assert sheet.shape[1] == 200  # two columns
    for value in (50, 100, 150):
        assert (sheet == value).all(axis=2).sum() > 4000
    assert draw_grid(pictures, columns=1, cell_width=100).shape[1] == 100
    with pytest.raises(ValueError, match="no pictures"):
        draw_grid([])


def test_training_image_shows_the_truth_above_the_detections():
    image = torch.zeros(3, 60, 80, dtype=torch.uint8)
    image[0] = 200  # blue, in BGR order
    truth = Instances((60, 80), gt_boxes=Boxes(torch.tensor([[10.0, 20, 40, 40]])))
    truth.gt_classes = torch.tensor([1])
    result = detections(num=1)
    result.scores[:] = 0.01  # early in training nothing scores high
    picture = draw_training_image({"image": image, "instances": truth}, result, "BGR")
    assert picture.shape == (960, 640, 3)
    assert tuple(picture[0, 0]) == (0, 0, 200)
    masks = [color_mask(picture, color).sum(axis=1) for color in pictures._CLASS_COLORS[:2]]
    assert masks[1][:480].sum() > 500 > masks[1][480:].sum()  # truth: class 1
    assert masks[0][480:].sum() > 500 > masks[0][:480].sum()  # detection: class 0
    swapped = draw_training_image({"image": image, "instances": truth}, result, "RGB")
    assert tuple(swapped[0, 0]) == (200, 0, 0)


@pytest.mark.parametrize("kind", ["pred_masks", "bitmask", "polygon"])
def test_masks_are_painted_the_best_on_top(kind):
    image = np.full((60, 80, 3), 90, np.uint8)
    polygon = np.array([20.0, 10.0, 60.0, 10.0, 60.0, 50.0, 20.0, 50.0])
    pixels = torch.zeros(2, 60, 80, dtype=torch.bool)
    pixels[:, 10:50, 20:60] = True
    boxes = Boxes(torch.tensor([[20.0, 10.0, 60.0, 50.0]]).repeat(2, 1))
    if kind == "pred_masks":
        found = Instances((60, 80), pred_boxes=boxes, scores=torch.tensor([0.9, 0.4]))
        found.pred_classes, found.pred_masks = torch.tensor([0, 1]), pixels
    else:
        found = Instances((60, 80), gt_boxes=boxes, gt_classes=torch.tensor([0, 1]))
        is_polygon = kind == "polygon"
        found.gt_masks = PolygonMasks([[polygon]] * 2) if is_polygon else BitMasks(pixels)
    first, second = (
        np.array(matplotlib.colors.to_rgb(x)) * 255 for x in pictures._CLASS_COLORS[:2]
    )
    below = 90.0 if kind == "pred_masks" else 90 + 0.45 * (second - 90)  # 0.4 is not shown
    expected = below + 0.45 * (first - below)
    middle = draw_detections(image, found)[240, 320]
    np.testing.assert_allclose(middle, expected, atol=2)
