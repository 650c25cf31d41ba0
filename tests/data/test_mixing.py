"""Copy-paste and mosaic, to the pixel; and in the loader, which repeats them."""

import itertools

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

from gfocal.data import (
    CopyPaste,
    DetectionMapper,
    Mosaic,
    build_train_loader,
    detection_dataset_dicts,
    register_shapes,
)
from gfocal.data.mixing import pixels_of

pytestmark = pytest.mark.usefixtures("one_thread")
FORMATS = ("polygon", "bitmask")


def polygon(x0, y0, x1, y1):
    return np.array([x0, y0, x1, y0, x1, y1, x0, y1], dtype=np.float64)


def mapped(boxes, classes, size=(40, 60), color=10, masks: str | None = "polygon", **kwargs):
    """An image whose objects fill their boxes."""
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if masks is not None:
        polygons = PolygonMasks([[polygon(*box)] for box in boxes])
        instances.gt_masks = polygons
        if masks == "bitmask":
            instances.gt_masks = BitMasks(pixels_of(instances))
    image = torch.full((3, *size), color, dtype=torch.uint8)
    return {"file_name": "a.png", "image_id": 7, "image": image, "instances": instances, **kwargs}


def paste_all(source, target, **kwargs):
    """With random states until all objects are pasted."""
    for seed in range(100):
        np.random.seed(seed)
        result = CopyPaste(1.0, **kwargs)(target, lambda: source)
        if set(source["instances"].gt_classes.tolist()) <= set(
            result["instances"].gt_classes.tolist()
        ):
            return result
    raise AssertionError("never pasted all")


def boxes_of(result):
    return result["instances"].gt_boxes.tensor.tolist()


def filled(result):
    """The masks of objects that fill their boxes."""
    masks = torch.zeros(len(result["instances"]), *result["image"].shape[1:], dtype=torch.bool)
    for mask, box in zip(masks, boxes_of(result)):
        x0, y0, x1, y1 = map(int, box)
        mask[y0:y1, x0:x1] = True
    return masks


# Copy-paste


@pytest.mark.parametrize("masks", FORMATS)
def test_a_paste_to_the_pixel(masks):
    """A loses its right half; B is hidden but for 1 of 12 columns; C is untouched."""
    a, b, c = [4, 5, 24, 15], [30, 20, 42, 30], [50, 2, 58, 9]
    target = mapped([a, b, c], [1, 2, 3], masks=masks)
    before = target["image"].clone(), boxes_of(target)
    over_a, over_b = [14, 0, 28, 18], [31, 18, 45, 33]
    source = mapped([over_a, over_b], [4, 5], color=200, masks=masks)
    result = paste_all(source, target)

    image = torch.full((3, 40, 60), 10, dtype=torch.uint8)
    image[:, 0:18, 14:28] = 200
    image[:, 18:33, 31:45] = 200
    assert torch.equal(result["image"], image) and result["image_id"] == 7
    found = result["instances"]
    assert found.gt_classes.tolist() == [1, 3, 4, 5]
    assert boxes_of(result) == [[4, 5, 14, 15], c, over_a, over_b]
    assert isinstance(found.gt_masks, PolygonMasks if masks == "polygon" else BitMasks)
    assert torch.equal(pixels_of(found), filled(result))
    assert torch.equal(target["image"], before[0]) and boxes_of(target) == before[1]

    least = paste_all(source, target, min_visible=0.0)["instances"]
    assert least.gt_classes.tolist() == [1, 2, 3, 4, 5]
    assert least.gt_boxes.tensor[1].tolist() == [30, 20, 31, 30]


@pytest.mark.parametrize("masks", FORMATS)
def test_an_object_with_a_hole(masks):
    target = mapped([[10, 10, 40, 30]], [1], masks=masks)
    result = paste_all(mapped([[20, 15, 25, 20]], [2], color=9, masks=masks), target)
    assert boxes_of(result) == [[10, 10, 40, 30], [20, 15, 25, 20]]
    first, second = pixels_of(result["instances"])
    assert first.sum() == 600 - 25 and second.sum() == 25 and not (first & second).any()


@pytest.mark.parametrize("masks", FORMATS)
def test_images_of_other_sizes_and_types(masks):
    source = mapped([[50, 5, 70, 15], [61, 5, 70, 9]], [2, 3], (30, 80), 200, masks)
    source["image"] = source["image"] + 0.5
    result = paste_all(mapped([], [], masks=masks), {**source, "instances": source["instances"]})
    assert result["image"].dtype == torch.float32  # nothing to paste
    np.random.seed(0)
    result = CopyPaste(1.0)(mapped([[0, 0, 9, 9]], [1], masks=masks), lambda: source)
    assert result["instances"].gt_classes.tolist() == [1, 2]  # the other is beyond the image
    assert boxes_of(result)[1] == [50, 5, 60, 15]
    assert (result["image"][:, 5:15, 50:] == 200.5).all() and result["image"].sum() == 3 * (
        10 * 2400 + 190.5 * 100
    )


def test_how_many_and_how_often():
    source = mapped([[i * 9, 3, i * 9 + 5, 8] for i in range(4)], [0, 1, 2, 3])
    target = mapped([[0, 30, 9, 39]], [9])
    step = CopyPaste(0.3)
    counts = [len(step(target, lambda: source)["instances"]) - 1 for _ in range(300)]
    assert set(counts) == {0, 1, 2, 3, 4}
    assert 0.22 < np.mean([x > 0 for x in counts]) < 0.38
    assert 12 < counts.count(2) < 36  # each number as often
    for prob in (0, 1.0):
        result = CopyPaste(prob, keep_masks=False)(target, lambda: source)
        assert not result["instances"].has("gt_masks") and target["instances"].has("gt_masks")


def test_regions_of_crowds_stay():
    regions = Boxes(torch.tensor([[1.0, 2.0, 30.0, 20.0]]))
    other = Boxes(torch.tensor([[5.0, 5.0, 9.0, 9.0]]))
    source = mapped([[3, 3, 9, 9]], [1], ignore_regions=other)
    result = CopyPaste(1.0)(mapped([], [], ignore_regions=regions), lambda: source)
    assert result["ignore_regions"] is regions and len(result["instances"]) == 1


def test_masks_without_a_pixel_say_nothing():
    thin = mapped([[3, 3, 9, 3.1]], [1])
    result = paste_all(mapped([[0, 0, 20, 20]], [2]), thin)
    assert result["instances"].gt_classes.tolist() == [1, 2]
    assert CopyPaste(1.0)(mapped([], []), lambda: thin)["instances"].gt_classes.tolist() == []


# Mosaic


def tiles_of(result, center):
    y, x = center
    image = result["image"]
    return [image[:, :y, :x], image[:, :y, x:], image[:, y:, :x], image[:, y:, x:]]


@pytest.mark.parametrize("masks", [None, *FORMATS])
def test_a_mosaic_to_the_pixel(masks):
    """Four images of the size of their tiles, so that all of each is seen."""
    images = [mapped([[2, 3, 12, 8]], [i], (20, 30), 10 * i, masks) for i in (1, 2, 3, 4)]
    first = mapped([[2, 3, 12, 8]], [1], (40, 60), 10, masks)
    others = iter(images[1:])
    step = Mosaic(1.0, center_range=(0.5, 0.5), fill=99)
    result = step(first, lambda: next(others))
    assert result["image"].shape == (3, 40, 60) and result["file_name"] == "a.png"
    colors = [tile.unique().tolist() for tile in tiles_of(result, (20, 30))]
    assert colors == [[10], [20], [30], [40]]
    found = result["instances"]
    assert found.image_size == (40, 60) and found.gt_classes.tolist() == [1, 2, 3, 4]
    (x0, y0, x1, y1), *rest = boxes_of(result)
    assert (x1 - x0, y1 - y0) <= (10, 5)  # the first is larger than its tile
    assert rest == [[32, 3, 42, 8], [2, 23, 12, 28], [32, 23, 42, 28]]
    if masks:
        assert isinstance(found.gt_masks, PolygonMasks if masks == "polygon" else BitMasks)
        pixels = pixels_of(found)
        assert pixels[1:].flatten(1).sum(1).tolist() == [50, 50, 50]
        assert pixels[3, 23:28, 32:42].all()


@pytest.mark.parametrize("masks", [None, *FORMATS])
def test_what_a_tile_cuts(masks):
    """Windows of a larger image: the image's pixels say where each one is."""
    ramp = torch.arange(100, dtype=torch.uint8).expand(3, 80, 100).clone()
    rows = torch.arange(80, dtype=torch.uint8)[:, None].expand(80, 100)
    boxes = [[20, 30, 40, 40], [70, 10, 90, 60]]
    regions = Boxes(torch.tensor([[0.0, 0.0, 100.0, 80.0]]))
    dropped = clipped = 0
    for seed in range(12):
        np.random.seed(seed)
        image = mapped(boxes, [1, 2], (80, 100), masks=masks, ignore_regions=regions)
        image["image"] = ramp.clone()
        image["image"][1] = rows
        result = Mosaic(1.0, center_range=(0.5, 0.5), min_visible=0.3)(image, lambda x=image: x)
        objects, expected = result["instances"], []
        for top, left in itertools.product((0, 40), (0, 50)):
            x, y = int(result["image"][0, top, left]), int(result["image"][1, top, left])
            tile = result["image"][:, top : top + 40, left : left + 50]
            assert torch.equal(tile, image["image"][:, y : y + 40, x : x + 50])
            for label, box in zip((1, 2), np.array(boxes)):
                part = box.clip([x, y, x, y], [x + 50, y + 40, x + 50, y + 40])
                shares = (part[2:] - part[:2]).prod() / (box[2:] - box[:2]).prod()
                if shares >= 0.3:
                    moved = part + [left - x, top - y, left - x, top - y]
                    expected.append((label, *moved.tolist()))
                    clipped += shares < 1
                else:
                    dropped += 1
        found = zip(objects.gt_classes.tolist(), boxes_of(result))
        assert [(label, *box) for label, box in found] == expected
        if masks:
            assert torch.equal(pixels_of(objects), filled(result))
        places = [[0, 0, 50, 40], [50, 0, 100, 40], [0, 40, 50, 80], [50, 40, 100, 80]]
        assert result["ignore_regions"].tensor.tolist() == places
    assert dropped > 5 and clipped > 5


def test_a_window_shows_an_object():
    small = mapped([[90, 2, 98, 9]], [1], (200, 300), masks=None)
    for seed in range(15):
        np.random.seed(seed)
        result = Mosaic(1.0)(small, lambda: small)
        assert len(result["instances"]) == 4  # the centre of one is in each tile
    tiny = mapped([], [], (1, 1), masks=None)
    assert Mosaic(1.0)(tiny, lambda: small)["image"].shape == (3, 1, 1)
    result = Mosaic(1.0, fill=77)(small, lambda: tiny)
    assert (result["image"] == 77).any() and len(result["instances"]) == 1


def test_where_no_mosaic_is_made():
    image = mapped([[0, 0, 9, 9]], [1])

    def never():
        raise AssertionError("drawn")

    assert Mosaic(0)(image, never) is image
    assert CopyPaste(0)(image, never)["image"] is image["image"]


# Errors


def test_arguments():
    for step, prob in itertools.product((CopyPaste, Mosaic), (1.5, -1, True, float("nan"))):
        with pytest.raises(ValueError, match=rf"{step.__name__}: prob is {prob}; expected a numb"):
            step(prob)
    for step in (CopyPaste, Mosaic):
        with pytest.raises(ValueError, match=r"min_visible is 1.0; expected a share in \[0, 1\)"):
            step(min_visible=1.0)
    for bounds in ((0, 1), (0.7, 0.3), (0.5,)):
        with pytest.raises(ValueError, match="center_range is .*; expected"):
            Mosaic(center_range=bounds)


@pytest.mark.parametrize("step", [CopyPaste(1.0), Mosaic(1.0)])
def test_images_that_cannot_be_mixed(step):
    good = mapped([[0, 0, 9, 9]], [1])
    name = type(step).__name__
    bad = {key: value for key, value in good.items() if key != "instances"}
    for first, second in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match=rf"{name}: image 7 \(a.png\) has no 'instances'"):
            step(first, lambda second=second: second)
    with pytest.raises(ValueError, match="has 'sem_seg'; expected gt_boxes, gt_classes, gt_masks"):
        step({**good, "sem_seg": 1}, lambda: good)
    good["instances"].gt_keypoints = torch.zeros(1)
    with pytest.raises(ValueError, match="has 'gt_keypoints'"):
        step(good, lambda: good)


def test_copy_paste_without_masks():
    image = mapped([[0, 0, 9, 9]], [1], masks=None)
    with pytest.raises(ValueError, match=r"image 7 .*no gt_masks.*use_instance_mask=True, or Mos"):
        CopyPaste(0.0)(image, lambda: image)


# In the loader


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("shapes"))
    return detection_dataset_dicts(
        register_shapes("train", root=root, num_images=6, image_size=128), masks=True
    )


def jittered(size=96, **kwargs):
    return DetectionMapper(
        is_train=True,
        augmentations=[
            T.ResizeScale(0.3, 2.0, size, size),
            T.FixedSizeCrop((size, size)),
            T.RandomFlip(),
        ],
        image_format="RGB",
        **kwargs,
    )


MIXED = {
    "copy-paste": lambda: dict(
        mapper=jittered(use_instance_mask=True, instance_mask_format="bitmask"),
        mixing=[CopyPaste(0.7)],
    ),
    "mosaic": lambda: dict(mapper=jittered(), mixing=[Mosaic(0.7)]),
    "both": lambda: dict(
        mapper=jittered(use_instance_mask=True, instance_mask_format="bitmask"),
        mixing=[CopyPaste(0.7), Mosaic(0.7)],
    ),
}


def take(loader, count):
    return [x for batch in itertools.islice(iter(loader), count) for x in batch]


def assert_same_images(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a["image"], b["image"]) and a["image_id"] == b["image_id"]
        for (key, x), y in zip(
            a["instances"].get_fields().items(), b["instances"]._fields.values()
        ):
            x, y = getattr(x, "tensor", x), getattr(y, "tensor", y)
            assert torch.equal(x, y), key


@pytest.mark.parametrize("kind", MIXED)
def test_an_image_depends_on_its_place_alone(kind, shapes):
    def loader(num_workers=0, **kwargs):
        kwargs = {"seed": 3, "aspect_ratio_grouping": False, **kwargs}
        return build_train_loader(shapes, total_batch_size=2, num_workers=num_workers, **kwargs)

    whole = take(loader(**MIXED[kind]()), 5)
    torch.rand(3), np.random.rand(3)
    resumed = loader(num_workers=2 if kind == "both" else 0, **MIXED[kind]())
    resumed.load_state_dict({**resumed.state_dict(), "num_batches": 1})
    assert_same_images(take(resumed, 4), whole[2:])
    plain = take(loader(mapper=jittered()), 5)
    changed = [not torch.equal(a["image"], b["image"]) for a, b in zip(plain, whole)]
    assert any(changed)
    for image in whole:
        boxes = image["instances"].gt_boxes
        assert boxes.nonempty().all() and boxes.tensor.max() <= 96
        if image["instances"].has("gt_masks"):
            areas = image["instances"].gt_masks.tensor.flatten(1).sum(1)
            assert (areas > 0).all() and (areas <= boxes.area() + 1).all()


def test_a_mapper_without_an_answer():
    dicts = [{"file_name": f"{i}", "width": 8, "height": 8, "id": i} for i in range(4)]
    drawn = []

    def mapper(x):
        return None if x["id"] < 2 else {"id": x["id"]}

    def step(image, another):
        drawn.append(another()["id"])
        return image

    loader = build_train_loader(dicts, mapper=mapper, mixing=[step], total_batch_size=1, seed=0)
    assert {x["id"] for x in take(loader, 20)} == {2, 3} == set(drawn) and len(drawn) == 20
    with pytest.raises(TypeError, match="mixing has 'copy'; expected steps such as"):
        build_train_loader(dicts, mapper=dict, mixing=["copy"], total_batch_size=1)
