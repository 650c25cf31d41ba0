import colorsys

import numpy as np
import pytest

from gfocal.data.colors import PhotometricTransform, adjust_hue_and_saturation


def by_colorsys(image, hue, saturation, image_format):
    """Pixel after pixel."""
    result = np.empty_like(image)
    order = [0, 1, 2] if image_format == "RGB" else [2, 1, 0]
    for place in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*image[place][order].tolist())
        # colorsys' hsv_to_rgb is linear in s, so that it may be above 1 here.
        result[place] = np.array(colorsys.hsv_to_rgb((h + hue / 360) % 1, s * saturation, v))[order]
    return result


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
@pytest.mark.parametrize(("hue", "saturation"), [(18, 1.0), (-18, 1.5), (0, 0.5), (179, 0.0)])
def test_as_colorsys(image_format, hue, saturation):
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (70, 9, 3)).astype(np.float32)  # more rows than are done at once
    image[0] = rng.integers(0, 2, (9, 3)) * 255  # pure colours, black and white
    image[1] = 77  # grey has no hue
    image[2, :, :2] = image[2, :, 2:]  # grey too
    image[3, :, 0] = image[3, :, 1]  # two equal channels
    before = image.copy()
    found = adjust_hue_and_saturation(image, hue, saturation, image_format)
    assert found.dtype == np.float32
    assert found == pytest.approx(by_colorsys(image, hue, saturation, image_format), abs=1e-3)
    assert (image == before).all()
    assert found[1:3] == pytest.approx(image[1:3])


def test_a_third_of_a_turn_exchanges_the_channels():
    """Red becomes green, green blue, blue red."""
    rgb = np.random.default_rng(0).uniform(0, 255, (5, 6, 3)).astype(np.float32)
    turned = adjust_hue_and_saturation(rgb, 120, 1.0, "RGB")
    assert turned == pytest.approx(rgb[:, :, [2, 0, 1]], abs=1e-3)
    turned = adjust_hue_and_saturation(rgb, 120, 1.0, "BGR")
    assert turned == pytest.approx(rgb[:, :, [1, 2, 0]], abs=1e-3)


def test_by_hand():
    """Value 200, chroma 150: doubled, it is 300, and the channels 200, -100 and 50."""
    pixel = np.array([[[200, 50, 125]]], np.float32)
    assert adjust_hue_and_saturation(pixel, 0, 2.0, "RGB").tolist() == [[[200, -100, 50]]]


def test_the_order_of_the_steps():
    """(100, 40, 40) + 20 is (120, 60, 60); half the saturation of it (120, 90, 90), of it as of
    twice it. Contrast and saturation commute; a brightness that came last would be seen."""
    image = np.array([[[100, 40, 40]]], np.uint8)
    for first in (True, False):
        transform = PhotometricTransform(
            brightness=20,
            contrast=2,
            contrast_first=first,
            saturation=0.5,
            channels=[1, 2, 0],
            image_format="RGB",
        )
        found = transform.apply_image(image)
        assert found.dtype == np.float32
        assert found.tolist() == [[[180, 180, 240]]]
    assert image.tolist() == [[[100, 40, 40]]]


def test_nothing_is_clipped_and_nothing_else_changes():
    image = np.array([[[250, 3, 3]]], np.uint8)
    dark, bright = PhotometricTransform(brightness=-10), PhotometricTransform(contrast=1.5)
    assert dark.apply_image(image).tolist() == [[[240, -7, -7]]]
    assert bright.apply_image(image).tolist() == [[[375, 4.5, 4.5]]]
    assert (PhotometricTransform().apply_image(image) == image).all()
    boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert (dark.apply_box(boxes) == boxes).all()
    assert dark.apply_segmentation(image) is image


@pytest.mark.parametrize("shape", [(4, 5, 1), (4, 5), (4, 5, 4)])
def test_other_channels_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\), colours"):
        PhotometricTransform().apply_image(np.zeros(shape, np.uint8))
