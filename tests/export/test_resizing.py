"""Detectron2's ResizeShortestEdge is what the tests compare with."""

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gfocal.data.mapper import without_empty_resize
from gfocal.export.resizing import resize, resized


@pytest.mark.parametrize(
    "rule",
    [
        {"short_edge": 800, "max_size": 1333},
        {"short_edge": 80, "max_size": 120},
        {"short_edge": 33},
        {"short_edge": 1, "max_size": 1},
    ],
)
def test_sizes(rule):
    names = {"short_edge": "short_edge_length", "max_size": "max_size"}
    shortest = T.ResizeShortestEdge(**{names[name]: value for name, value in rule.items()})
    (augmentation,) = without_empty_resize([shortest])
    sizes = np.random.randint(1, 2000, (2000, 2)).tolist()
    for height, width in [*sizes, [5000, 1], [1, 5000], [1, 1], [800, 800]]:
        transform = augmentation.get_transform(np.broadcast_to(np.uint8(0), (height, width, 3)))
        assert resized((height, width), rule) == (transform.new_h, transform.new_w)


def test_no_rule():
    assert resized((37, 91), {}) == (37, 91)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(24, 31), (90, 64), (1, 200), (37, 50)])
def test_pixels_to_the_bit(channels, size):
    image = np.random.randint(0, 256, (37, 50, channels), np.uint8)
    expected = T.ResizeTransform(37, 50, *size).apply_image(image)
    for view in (image, image[:, :, ::-1][:, :, ::-1], np.asfortranarray(image)):
        found = resize(view, size)
        assert found.dtype == np.uint8 and found.shape == (*size, channels)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", [(24, 31), (90, 64), (1, 200), (37, 50)])
def test_other_channels_are_interpolated(size):
    image = np.random.randint(0, 256, (37, 50, 5)).astype(np.float32)
    expected = T.ResizeTransform(37, 50, *size).apply_image(image)
    found = resize(image, size)
    assert found.dtype == np.float32 and found.shape == (*size, 5)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    again = F.interpolate(tensor, size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found, again[0].permute(1, 2, 0), atol=1e-3)


def test_interpolation_by_hand():
    """Two pixels become four: centres at -0.25, 0.25, 0.75, 1.25; the outer ones are clamped."""
    image = np.array([[[0.0], [8.0]]], np.float32)
    assert resize(image, (1, 4))[0, :, 0].tolist() == [0, 2, 6, 8]
