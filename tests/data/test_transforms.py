"""The augmentations draw from NumPy's global state. So a plain version with the same draws, from a
state of its own, must have the same answer."""

import detectron2.data.transforms as T
import numpy as np
import pytest
from fvcore.transforms.transform import NoOpTransform

from gfocal.data.placement import PlaceTransform
from gfocal.data.transforms import (
    CenterPad,
    MinIoURandomCrop,
    PhotometricDistortion,
    RandomCenterCropPad,
    RandomExpand,
)

MEAN = (123.675, 116.28, 103.53)


def noise(height, width, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8).astype(dtype)


def random_boxes(rng, height, width, count):
    """Some without area, some at the border, some over it."""
    corners = rng.uniform(-0.2, 1.2, (count, 2, 2)) * (width, height)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    if count:
        boxes[0, 2] = boxes[0, 0]
    if count > 1:
        boxes[1] = 0, 0, width, height
    return boxes


def applied(augmentation, image, boxes=None):
    """The transform, the new image and the boxes that are left."""
    aug_input = T.AugInput(image, boxes=None if boxes is None else boxes.copy())
    transform = augmentation(aug_input)
    left = aug_input.boxes
    if left is not None:
        left = left[(left[:, 2:] > left[:, :2]).all(axis=1)]
    return transform, aug_input.image, left


# Expand


@pytest.mark.parametrize("seed", range(20))
def test_expand_as_a_plain_version(seed):
    image, draws = noise(7, 11), np.random.RandomState(seed)
    boxes = np.array([[1.0, 2.0, 5.0, 6.0]])
    np.random.seed(seed)
    transform, found, moved = applied(RandomExpand(MEAN), image, boxes)
    if draws.uniform() >= 0.5:
        assert isinstance(transform, NoOpTransform) and found is image
        return
    ratio = draws.uniform(1, 4)
    left, top = int(draws.uniform(0, 11 * ratio - 11)), int(draws.uniform(0, 7 * ratio - 7))
    expected = np.empty((int(7 * ratio), int(11 * ratio), 3), np.uint8)
    expected[:] = (123, 116, 103)  # without the fraction
    for y in range(7):
        for x in range(11):
            expected[top + y, left + x] = image[y, x]
    assert found.dtype == np.uint8 and (found == expected).all()
    assert moved.tolist() == [[1 + left, 2 + top, 5 + left, 6 + top]]


def test_expand_leaves_half_of_the_images():
    np.random.seed(0)
    expand, image = RandomExpand(MEAN), noise(3, 4)
    shapes = [applied(expand, image)[1].shape[:2] for _ in range(400)]
    assert 170 < shapes.count((3, 4)) < 235  # or a ratio below 4/3 that adds no pixel
    assert max(shapes) == (11, 15)
    always = RandomExpand(0, ratio_range=(2, 2), prob=1)
    assert applied(always, image)[1].shape == (6, 8, 3)
    assert all(applied(RandomExpand(0, prob=0), image)[1] is image for _ in range(50))


def test_floats_get_the_mean_with_its_fraction():
    found = applied(RandomExpand(MEAN, (2, 2), prob=1), noise(1, 1, np.float32))[1]
    assert ((found == np.float32(MEAN)).all(axis=2)).sum() == 3


# Crop with an IoU


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    area = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return shared / (area - shared)


def plain_crop(draws, height, width, boxes):
    """The crop, or None for none; and how often one was tried."""
    tried = 0
    while True:
        mode = ["none", 0.1, 0.3, 0.5, 0.7, 0.9, 0][draws.randint(7)]
        if mode == "none":
            return None, tried
        for _ in range(50):
            tried += 1
            w, h = draws.uniform(0.3 * width, width), draws.uniform(0.3 * height, height)
            if h / w < 0.5 or h / w > 2:
                continue
            left, top = draws.uniform(0, width - w), draws.uniform(0, height - h)
            crop = int(left), int(top), int(left + w), int(top + h)
            if crop[0] == crop[2] or crop[1] == crop[3]:
                continue
            centers = [((a + c) / 2, (b + d) / 2) for a, b, c, d in boxes]
            inside = [crop[0] < x < crop[2] and crop[1] < y < crop[3] for x, y in centers]
            if boxes and not (any(inside) and min(iou(crop, x) for x in boxes) >= mode):
                continue
            return crop, tried


@pytest.mark.parametrize("seed", range(40))
def test_min_iou_crop_as_a_plain_version(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(x) for x in rng.integers(5, 60, 2))
    boxes = random_boxes(rng, height, width, int(rng.integers(0, 4)))
    visible = boxes.clip(0, [width, height, width, height])
    visible = [x.tolist() for x in visible if x[2] > x[0] and x[3] > x[1]]
    expected, _ = plain_crop(np.random.RandomState(seed), height, width, visible)
    image = noise(height, width, seed=seed)
    np.random.seed(seed)
    transform, found, left = applied(MinIoURandomCrop(), image, boxes)
    if expected is None:
        assert isinstance(transform, NoOpTransform) and found is image
        return
    x0, y0, x1, y1 = expected
    assert transform.crop == expected
    assert (found == image[y0:y1, x0:x1]).all()
    kept = []
    for a, b, c, d in visible:
        if x0 < (a + c) / 2 < x1 and y0 < (b + d) / 2 < y1:
            kept.append([max(a, x0) - x0, max(b, y0) - y0, min(c, x1) - x0, min(d, y1) - y0])
    assert left == pytest.approx(np.array(kept).reshape(-1, 4))


def test_the_plain_version_had_something_to_do():
    """The seeds of the test above have crops of each kind, after tries that failed."""
    crops = []
    for seed in range(40):
        boxes = [[2, 2, 30, 30], [10, 10, 40, 40]]
        crops.append(plain_crop(np.random.RandomState(seed), 50, 50, boxes))
    assert 3 < sum(crop is None for crop, _ in crops) < 30
    assert max(tried for _, tried in crops) > 100


def test_an_iou_by_hand(monkeypatch):
    """A crop of x 0..10, y 0..10 on a box of x 0..5, y 0..10 has an IoU of .5; it is allowed at .5
    and not at .7."""
    boxes, image = np.array([[0.0, 0.0, 5.0, 10.0]]), noise(10, 20)
    script = [10.0, 10.0, 0.0, 0.0]  # width, height, left, top
    draws = iter(script)
    monkeypatch.setattr(np.random, "uniform", lambda low, high: next(draws))
    monkeypatch.setattr(np.random, "randint", lambda high: 1)
    transform = MinIoURandomCrop(min_ious=[0.5]).get_transform(image, boxes)
    assert transform.crop == (0, 0, 10, 10)
    draws = iter(script * 50)  # all are refused; then no crop is drawn
    choices = iter([1, 0])
    monkeypatch.setattr(np.random, "randint", lambda high: next(choices))
    transform = MinIoURandomCrop(min_ious=[0.7]).get_transform(image, boxes)
    assert isinstance(transform, NoOpTransform)
    assert next(draws, None) is None


def test_the_least_side():
    np.random.seed(0)
    image, crops = noise(100, 100), []
    for _ in range(300):
        transform = MinIoURandomCrop(min_crop_size=0.6).get_transform(image)
        crops += [transform.size] if isinstance(transform, PlaceTransform) else []
    assert len(crops) > 200
    assert 60 <= min(min(x) for x in crops) < 65 and max(max(x) for x in crops) > 95


# Window


def plain_border(border, size):
    """MMDetection's closed form."""
    k = 2 * border / size
    return int(border // 2 ** (np.ceil(np.log2(np.ceil(k))) + (k == int(k))))


def test_the_border_of_a_small_image():
    image = noise(100, 300)
    crop = RandomCenterCropPad(10, ratios=[1], border=128)
    np.random.seed(0)
    centers = []
    for _ in range(300):
        left, top, _, _ = crop.get_transform(image).crop
        centers.append((left + 5, top + 5))  # the window is inside: the border is 32 and 128
    xs, ys = zip(*centers)
    assert (min(xs), max(xs)) == (128, 171)
    assert (min(ys), max(ys)) == (32, 67)


@pytest.mark.parametrize("seed", range(40))
def test_window_as_a_plain_version(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(x) for x in rng.integers(1, 60, 2))
    boxes = random_boxes(rng, height, width, int(rng.integers(0, 4)))
    visible = boxes.clip(0, [width, height, width, height])
    visible = [x.tolist() for x in visible if x[2] > x[0] and x[3] > x[1]]
    ratios, size = (0.6, 1.0, 1.3), (21, 34)
    image = noise(height, width, np.float32, seed)
    np.random.seed(seed)
    _, found, left = applied(RandomCenterCropPad(size, ratios, 16, MEAN), image, boxes)

    draws = np.random.RandomState(seed)
    bx, by = plain_border(16, width), plain_border(16, height)
    accepted = False
    while not accepted:
        ratio = draws.choice(ratios)
        h, w = int(size[0] * ratio), int(size[1] * ratio)
        for _ in range(50):
            x, y = draws.randint(bx, width - bx), draws.randint(by, height - by)
            x0, x1 = max(x - w // 2, 0), min(x + w // 2, width)
            y0, y1 = max(y - h // 2, 0), min(y + h // 2, height)
            centers = [((a + c) / 2, (b + d) / 2) for a, b, c, d in visible]
            inside = [x0 < cx < x1 and y0 < cy < y1 for cx, cy in centers]
            accepted = any(inside) or not visible
            if accepted:
                break
    dx, dy = w // 2 - x, h // 2 - y  # from the image to the window
    expected = np.empty((h, w, 3), np.float32)
    for row in range(h):
        for column in range(w):
            source = column - dx, row - dy
            seen = x0 <= source[0] < x1 and y0 <= source[1] < y1
            expected[row, column] = image[source[1], source[0]] if seen else MEAN
    assert found.dtype == np.float32 and (found == expected).all()
    kept = [
        [max(a + dx, 0), max(b + dy, 0), min(c + dx, w), min(d + dy, h)]
        for (a, b, c, d), is_inside in zip(visible, inside)
        if is_inside
    ]
    assert left == pytest.approx(np.array(kept).reshape(-1, 4))


def test_an_object_that_no_window_reaches():
    """The pixel is at x, y 64..127, and the window reaches 57 more: never to the box. The published
    code would go on for ever."""
    np.random.seed(0)
    crop, image = RandomCenterCropPad(96, ratios=[0.6, 1.2], border=128), noise(192, 192)
    transform, found, left = applied(crop, image, np.array([[0.0, 0.0, 3.0, 4.0]]))
    assert transform.crop[:2] == (0, 0) and len(left) == 1
    assert found.shape[0] in (57, 115)
    x0, y0, x1, y1 = left[0].astype(int)
    assert (found[y0:y1, x0:x1] == image[:4, :3]).all()


# Properties of all


AUGMENTATIONS = {
    "expand": RandomExpand(MEAN),
    "min iou": MinIoURandomCrop(),
    "window": RandomCenterCropPad(40, mean=MEAN),
    "small window": RandomCenterCropPad((3, 5), ratios=[0.7, 1]),
    "pad": CenterPad(MEAN),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_boxes_of_random_images(name):
    """No image is empty; what is kept is inside, and each box shows the pixels that it showed."""
    rng = np.random.default_rng(0)
    np.random.seed(0)
    augmentation, dropped, kept = AUGMENTATIONS[name], 0, 0
    for index in range(400):
        height, width = (int(x) for x in rng.integers(1, [3, 90][index % 2], 2))
        boxes = random_boxes(rng, height, width, int(rng.integers(0, 5))).round()
        # The image shows its own coordinates.
        ys, xs = np.mgrid[1 : height + 1, 1 : width + 1]
        image = np.stack([xs, ys, ys], axis=2).astype(np.float32)
        aug_input = T.AugInput(image, boxes=boxes.copy())
        transform = augmentation(aug_input)
        result, moved = aug_input.image, aug_input.boxes
        assert 0 not in result.shape and result.shape[2] == 3
        assert moved.shape == boxes.shape
        visible = boxes.clip(0, [width, height, width, height])
        has_area = (visible[:, 2:] > visible[:, :2]).all(axis=1)
        left = (moved[:, 2:] > moved[:, :2]).all(axis=1)
        if isinstance(transform, NoOpTransform):
            assert result is image
            continue
        assert not (left & ~has_area).any()
        if has_area.any() and name in ("min iou", "window", "small window"):
            assert left.any()  # an object is left
        if name in ("expand", "pad"):
            assert (left == has_area).all()
        dropped, kept = dropped + (has_area & ~left).sum(), kept + left.sum()
        limit = [result.shape[1], result.shape[0]] * 2
        assert (moved >= 0).all() and (moved <= limit).all()
        for old, new in zip(visible[left].astype(int), moved[left].astype(int)):
            patch = result[new[1] : new[3], new[0] : new[2]]
            own = (patch[:, :, 0] == patch[:, :, 0].round()) & (patch[:, :, 1] >= 1)
            own = patch[own]  # without padding, of an odd window's last pixel
            assert len(own) and (own[:, 0] > old[0]).all() and (own[:, 0] <= old[2]).all()
            assert (own[:, 1] > old[1]).all() and (own[:, 1] <= old[3]).all()
    assert kept > 60
    assert dropped == 0 if name in ("expand", "pad") else dropped > 15


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_no_boxes_are_none(name):
    """Without boxes, without visible ones, and without a word about them: the same."""
    image, augmentation = noise(30, 50), AUGMENTATIONS[name]
    results = []
    for boxes in (None, np.zeros((0, 4)), np.array([[4.0, 4, 4, 9], [60, 1, 70, 9]])):
        np.random.seed(3)
        results.append(applied(augmentation, image, boxes)[1])
    assert all(np.array_equal(x, results[0]) for x in results)


@pytest.mark.parametrize("height_width", [(1, 1), (1, 300), (300, 1)])
def test_min_iou_crop_of_images_that_have_none(height_width):
    """No crop has a ratio from 1:2 to 2:1, or a pixel."""
    np.random.seed(0)
    height, width = height_width
    box = np.array([[0.0, 0.0, width, height]])
    for _ in range(20):
        _, found, left = applied(MinIoURandomCrop(), noise(height, width), box)
        assert found.shape == (height, width, 3) and len(left) == 1


# Padding of tests


def test_sizes_of_padding_by_hand():
    centernet, cornernet = CenterPad(0, multiple=31, extra=1), CenterPad(0, multiple=127, extra=0)
    for side, expected in ((1, (32, 127)), (31, (32, 127)), (32, (64, 127)), (640, (672, 767))):
        image = noise(side, 5)
        found = tuple(x.get_transform(image).size[0] for x in (centernet, cornernet))
        assert found == expected


# Colours


def test_the_parts_of_the_distortion():
    np.random.seed(0)
    distortion = PhotometricDistortion(image_format="RGB")
    drawn = [distortion.get_transform(noise(1, 1)) for _ in range(600)]
    neutral = {"brightness": 0.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
    bounds = {"brightness": (-32, 32), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5)}
    for name, (low, high) in {**bounds, "hue": (-18, 18)}.items():
        values = [getattr(x, name) for x in drawn]
        changed = [x for x in values if x != neutral[name]]
        assert 250 < len(changed) < 350
        span = high - low
        assert low <= min(changed) < low + 0.05 * span
        assert high - 0.05 * span < max(changed) <= high
    assert 250 < sum(x.contrast_first for x in drawn) < 350
    # Half are left, and a sixth of the others.
    assert 310 < sum(list(x.channels) == [0, 1, 2] for x in drawn) < 390
    assert {tuple(x.channels) for x in drawn} >= {(2, 1, 0), (1, 2, 0), (0, 2, 1)}
    assert all(x.image_format == "RGB" for x in drawn)


# Arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RandomExpand(0, ratio_range=(0.5, 2)),
            r"RandomExpand: ratio_range is .*from 1 on",
        ),
        (lambda: RandomExpand(0, ratio_range=[3]), r"ratio_range is \[3\]; expected \(low, high\)"),
        (lambda: RandomExpand(0, prob=2), r"prob is 2; expected a number in \[0, 1\]"),
        (lambda: MinIoURandomCrop([0.5, 1]), r"min_ious is \(0.5, 1.0\); expected .*\[0, 1\)"),
        (lambda: MinIoURandomCrop(min_crop_size=0), r"min_crop_size is 0; expected .*\(0, 1\]"),
        (lambda: RandomCenterCropPad(8, ratios=[]), r"ratios is \(\); expected numbers above 0"),
        (lambda: RandomCenterCropPad(8, ratios=[0.1, 1]), r"crop_size is \(8, 8\); .*2 pixels"),
        (lambda: RandomCenterCropPad((8,)), r"crop_size is \(8,\)"),
        (lambda: RandomCenterCropPad(8, border=-1), "border is -1; expected at least 0 pixels"),
        (lambda: CenterPad(0, multiple=32), "multiple is 32; expected one less than a power of 2"),
        (lambda: CenterPad(0, extra=-1), "extra is -1; expected at least 0 pixels"),
        (lambda: PhotometricDistortion(image_format="L"), "image_format is 'L'; expected RGB or"),
        (lambda: PhotometricDistortion(-1, image_format="RGB"), "brightness_delta is -1"),
        (lambda: PhotometricDistortion(hue_delta=190, image_format="RGB"), "hue_delta is 190"),
        (
            lambda: PhotometricDistortion(contrast_range=(2, 1), image_format="RGB"),
            r"PhotometricDistortion: contrast_range is \[2, 1\]; expected \(low, high\)",
        ),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
