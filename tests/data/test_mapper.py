"""The mapper: Detectron2's answers on ordinary images, and an answer or a named error on others."""

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg, instantiate
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.structures import Boxes, BoxMode
from omegaconf import OmegaConf
from PIL import Image

from gfocal.config import add_gfocal_config
from gfocal.data import DetectionMapper, read_image
from gfocal.data.placement import PlaceTransform
from gfocal.data.transforms import CenterPad


def make_mapper(*augmentations, is_train=True, **kwargs):
    return DetectionMapper(is_train, augmentations=augmentations, image_format="BGR", **kwargs)


def annotation(x, y, w, h, category_id=0, **kwargs):
    return {
        "bbox": [x, y, w, h],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category_id,
        **kwargs,
    }


def write_image(tmp_path, height=40, width=60, annotations=()):
    """The dataset dict of an image of noise."""
    path = str(tmp_path / "image.png")
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return {
        "file_name": path,
        "image_id": 7,
        "height": height,
        "width": width,
        "annotations": list(annotations),
    }


# As Detectron2


@pytest.mark.parametrize("seed", range(5))
def test_the_same_as_detectron2s_mapper(tmp_path, seed):
    rng = np.random.default_rng(seed)
    height, width = (int(x) for x in rng.integers(20, 90, 2))
    annotations = [
        annotation(*rng.uniform(0, 60, 2), *rng.uniform(0, 60, 2), int(rng.integers(5)), iscrowd=c)
        for c in (0, 1, 0, 0, 0, 1, 0, 0)
    ]
    x, y, w, h = annotations[0]["bbox"]
    annotations[0].update(bbox=[x, y, x + w, y + h], bbox_mode=BoxMode.XYXY_ABS)
    dataset_dict = write_image(tmp_path, height, width, annotations)
    augmentations = [
        T.RandomCrop("relative_range", (0.3, 0.3)),
        T.ResizeShortestEdge((32, 80), max_size=100),
        T.RandomFlip(),
    ]
    results = []
    for mapper in (
        make_mapper(*augmentations),
        DatasetMapper(True, augmentations=augmentations, image_format="BGR"),
    ):
        np.random.seed(seed)
        results.append(mapper(dataset_dict))
    ours, theirs = results
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours.pop("image"), theirs.pop("image"))
    ours, theirs = ours.pop("instances"), theirs.pop("instances")
    assert ours.get_fields().keys() == theirs.get_fields().keys()
    assert ours.image_size == theirs.image_size
    assert torch.equal(ours.gt_boxes.tensor, theirs.gt_boxes.tensor)
    assert ours.gt_boxes.tensor.dtype == torch.float32
    assert torch.equal(ours.gt_classes, theirs.gt_classes)
    assert 0 < len(ours) <= 6
    assert results[0] == results[1]  # the rest


def test_boxes_outside_a_crop_and_without_area_are_left_out(tmp_path):
    annotations = [
        annotation(30, 5, 10, 10, 1),
        annotation(2, 3, 20, 10, 2),
        annotation(5, 5, 0, 9, 3),
    ]
    dataset_dict = write_image(tmp_path, annotations=annotations)
    instances = make_mapper(T.CropTransform(0, 0, 16, 16))(dataset_dict)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[2, 3, 16, 13]]
    assert instances.gt_classes.tolist() == [2]


def test_boxes_of_integers_are_not_truncated(tmp_path):
    dataset_dict = write_image(tmp_path, 40, 60, [annotation(1, 1, 3, 3)])
    instances = make_mapper(T.ResizeTransform(40, 60, 60, 90))(dataset_dict)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[1.5, 1.5, 6, 6]]


def test_is_train_is_read_when_an_image_is_mapped(tmp_path):
    dataset_dict = write_image(tmp_path, annotations=[annotation(1, 2, 3, 4)])
    mapper = make_mapper(is_train=False, crowds="ignore")
    result = mapper(dataset_dict)
    assert result.keys() == {"file_name", "image_id", "height", "width", "image"}
    mapper.is_train = True
    assert mapper(dataset_dict).keys() == {*result, "instances", "ignore_regions"}
    assert len(dataset_dict["annotations"]) == 1  # not changed
    del dataset_dict["annotations"]
    assert mapper(dataset_dict).keys() == result.keys()


# Augmentations that drop boxes


def test_the_class_of_a_dropped_box_goes_with_it(tmp_path):
    """The crop is x 0..20, y 0..20. Of (15, 0, 40, 10) a part is inside, but not the centre; the
    region of a crowd there is clipped and stays."""
    annotations = [
        annotation(15, 0, 25, 10, 1),
        annotation(4, 6, 8, 10, 2),
        annotation(15, 0, 25, 10, iscrowd=1),
        annotation(10, 10, 19, 4, 3),
        annotation(30, 30, 5, 5, 4),
        annotation(30, 30, 5, 5, iscrowd=1),
    ]
    dataset_dict = write_image(tmp_path, 40, 60, annotations)
    crop = PlaceTransform((40, 60), (0, 0, 20, 20), (20, 20), (0, 0))
    flip = T.HFlipTransform(20)
    result = make_mapper(crop, flip, crowds="ignore")(dataset_dict)
    assert result["instances"].gt_boxes.tensor.tolist() == [[8, 6, 16, 16], [0, 10, 10, 14]]
    assert result["instances"].gt_classes.tolist() == [2, 3]
    assert result["ignore_regions"].tensor.tolist() == [[0, 0, 5, 10]]
    assert result["image"].shape == (3, 20, 20)


class Spy(T.Augmentation):
    """Keeps the boxes that it is given."""

    def __init__(self):
        self.seen = []

    def get_transform(self, image, boxes=None):
        self.seen.append(None if boxes is None else boxes.tolist())
        return T.NoOpTransform()


def test_an_augmentation_gets_the_boxes_of_a_training(tmp_path):
    """After those before it, and without crowds. In a test, and without boxes, None."""
    spy = Spy()
    mapper = make_mapper(T.HFlipTransform(60), spy)
    dataset_dict = write_image(
        tmp_path, 40, 60, [annotation(10, 0, 5, 10), annotation(1, 2, 3, 4, iscrowd=1)]
    )
    assert len(mapper(dataset_dict)["instances"]) == 1
    mapper(write_image(tmp_path))
    mapper.is_train = False
    mapper(dataset_dict)
    assert spy.seen == [[[45, 0, 50, 10]], None, None]


class InPlace(T.Transform):
    """Changes the boxes that it is given, as a transform may."""

    def apply_image(self, img):
        return img

    def apply_coords(self, coords):
        return coords

    def apply_box(self, box):
        box += 1
        return box


def test_boxes_are_transformed_once(tmp_path):
    dataset_dict = write_image(tmp_path, annotations=[annotation(1, 2, 3, 4)])
    instances = make_mapper(InPlace())(dataset_dict)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[2, 3, 5, 7]]


def test_padding_tells_where_the_image_is(tmp_path):
    dataset_dict = write_image(tmp_path, 40, 60, [annotation(0, 0, 60, 40)])
    mapper = make_mapper(T.ResizeShortestEdge(20), CenterPad(0), is_train=False)
    result = mapper(dataset_dict)
    assert result["image"].shape == (3, 32, 32) and result["image"].dtype == torch.uint8
    assert (result["border"], result["content_size"]) == ((6, 1), (20, 30))
    assert (result["height"], result["width"]) == (40, 60)
    mapper.is_train = True  # as for the validation loss
    assert mapper(dataset_dict)["instances"].gt_boxes.tensor.tolist() == [[1, 6, 31, 26]]
    with pytest.raises(
        ValueError, match=r"\['CenterPad', 'RandomFlip'\]; expected one CenterPad, as"
    ):
        make_mapper(CenterPad(0), T.RandomFlip())
    nested = make_mapper(T.RandomApply(CenterPad(0), prob=1.0), T.RandomFlip(1.0))
    with pytest.raises(ValueError, match="image 7 .*expected one CenterPad, as the last"):
        nested(dataset_dict)


# Crowds


def test_crowds(tmp_path):
    annotations = [
        annotation(10, 10, 20, 10, iscrowd=1),
        annotation(0, 0, 10, 10, 4, iscrowd=0),
        annotation(40, 30, 50, 50, iscrowd=1),  # reaches out of the image
        annotation(0, 0, 0, 5, iscrowd=1),
    ]
    dataset_dict = write_image(tmp_path, 40, 60, annotations)
    augmentations = [T.ResizeTransform(40, 60, 80, 120), T.HFlipTransform(120)]
    dropped = make_mapper(*augmentations)(dataset_dict)
    ignored = make_mapper(*augmentations, crowds="ignore")(dataset_dict)
    assert "ignore_regions" not in dropped
    for result in (dropped, ignored):
        assert result["instances"].gt_boxes.tensor.tolist() == [[100, 0, 120, 20]]
        assert result["instances"].gt_classes.tolist() == [4]
    assert isinstance(ignored["ignore_regions"], Boxes)
    assert ignored["ignore_regions"].tensor.tolist() == [[60, 20, 100, 40], [0, 60, 40, 80]]


def test_no_crowd_and_only_crowds(tmp_path):
    mapper = make_mapper(crowds="ignore")
    assert len(mapper(write_image(tmp_path))["ignore_regions"]) == 0
    result = mapper(write_image(tmp_path, annotations=[annotation(1, 2, 3, 4, iscrowd=1)]))
    assert result["ignore_regions"].tensor.tolist() == [[1, 2, 4, 6]]
    assert result["instances"].gt_boxes.tensor.shape == (0, 4)


def test_another_word_for_crowds_is_refused():
    with pytest.raises(ValueError, match='crowds.* is \'keep\'; expected "drop" or "ignore"'):
        make_mapper(crowds="keep")


# Both kinds of config


def test_yacs(tmp_path):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.merge_from_list(["INPUT.CROP.ENABLED", True, "INPUT.FORMAT", "RGB"])
    mapper = DetectionMapper(cfg, is_train=True)
    assert (mapper.is_train, mapper.image_format, mapper.crowds) == (True, "RGB", "drop")
    assert str(mapper.augmentations) == str(DatasetMapper(cfg, True).augmentations)
    cfg.INPUT.CROWDS = "ignore"
    mapper = DetectionMapper(cfg, False)
    assert (mapper.is_train, mapper.crowds) == (False, "ignore")
    assert mapper(write_image(tmp_path, 5, 60))["image"].shape == (3, 111, 1333)
    assert DetectionMapper(get_cfg(), False).crowds == "drop"
    cfg.MODEL.KEYPOINT_ON = True
    with pytest.raises(ValueError, match="MODEL.KEYPOINT_ON is True.*boxes and masks"):
        DetectionMapper(cfg, True)


def test_lazy_config(tmp_path):
    resize = L(T.ResizeShortestEdge)(short_edge_length=20, max_size=99)
    node = L(DetectionMapper)(is_train=False, augmentations=[resize], image_format="RGB")
    mapper = instantiate(OmegaConf.create({"mapper": node}, flags={"allow_objects": True}).mapper)
    assert mapper(write_image(tmp_path))["image"].shape == (3, 20, 30)


# Images of every mode


def save(tmp_path, image, suffix="png", **kwargs):
    path = str(tmp_path / f"image.{suffix}")
    image.save(path, **kwargs)
    return path


GREY = np.array([[0, 100, 200], [50, 150, 255]], np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled(tmp_path, suffix):
    """PIL's own conversion makes white of all that is above 255."""
    path = save(tmp_path, Image.fromarray(GREY.astype(np.uint16) * 257), suffix)
    assert (utils.read_image(path, "RGB") == 255).sum() == 15
    for format in ("RGB", "BGR"):
        image = read_image(path, format)
        assert image.dtype == np.uint8
        assert (image == GREY[..., None].repeat(3, axis=2)).all()
    assert (read_image(path, "L") == GREY[..., None]).all()


def test_16_bit_rounds_to_the_nearest(tmp_path):
    pixels = np.array([[0, 128, 129, 300, 65406, 65407, 65535]], np.uint16)
    found = read_image(save(tmp_path, Image.fromarray(pixels)), "L")[..., 0]
    assert found.tolist() == [[0, 0, 1, 1, 254, 255, 255]]
    # Big-endian, and as older versions of PIL open such a file
    big_endian = Image.frombytes("I;16B", (7, 1), pixels.byteswap().tobytes())
    big_endian = save(tmp_path, big_endian, "tif")
    assert Image.open(big_endian).mode == "I;16B"
    assert read_image(big_endian, "L")[..., 0].tolist() == found.tolist()
    wide = save(tmp_path, Image.fromarray(pixels.astype(np.int32)), "tif")
    assert Image.open(wide).mode == "I"
    assert read_image(wide, "L")[..., 0].tolist() == found.tolist()


def make_palette(transparent=False):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    return image, {"transparency": 1} if transparent else {}


RGB = np.array([[[255, 0, 0], [0, 255, 0], [10, 20, 30]]], np.uint8)
MODES = {
    "grey": (Image.fromarray(GREY), {}, GREY[..., None].repeat(3, 2)),
    "1 bit": (Image.fromarray(GREY > 99), {}, (GREY > 99)[..., None].repeat(3, 2) * 255),
    "palette": (*make_palette(), RGB),
    "palette with transparency": (*make_palette(True), RGB),
    "RGB": (Image.fromarray(RGB), {}, RGB),
    "RGBA": (Image.fromarray(np.dstack([RGB, [[0, 9, 255]]]).astype(np.uint8)), {}, RGB),
    "LA": (
        Image.fromarray(np.dstack([GREY, 255 - GREY]), mode="LA"),
        {},
        GREY[..., None].repeat(3, 2),
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_8_bit_modes(tmp_path, mode):
    image, options, expected = MODES[mode]
    path = save(tmp_path, image, **options)
    found = read_image(path, "RGB")
    assert found.dtype == np.uint8
    assert (found == expected).all()
    assert (found == utils.read_image(path, "RGB")).all()
    assert (read_image(path, "BGR") == expected[..., ::-1]).all()
    height, width = found.shape[:2]
    result = make_mapper()({"file_name": path, "height": height, "width": width})
    assert (result["image"].permute(1, 2, 0).numpy() == expected[..., ::-1]).all()


def test_cmyk(tmp_path):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 1] = 255  # magenta
    path = save(tmp_path, Image.fromarray(ink, mode="CMYK"), "jpg", quality=100, subsampling=0)
    assert Image.open(path).mode == "CMYK"
    found = read_image(path, "RGB")
    assert (found == utils.read_image(path, "RGB")).all()
    assert np.abs(found.astype(int) - [255, 0, 255]).max() < 5


def test_exif_orientation(tmp_path):
    """A camera held upright: the file's first row is what one sees at the right."""
    exif = Image.Exif()
    exif[274] = 6
    for pixels in (GREY, GREY.astype(np.uint16) * 257):
        path = save(tmp_path, Image.fromarray(pixels), "png", exif=exif)
        assert (read_image(path, "L")[..., 0] == np.rot90(GREY, -1)).all()
    assert make_mapper()({"file_name": path, "height": 3, "width": 2})["image"].shape == (3, 3, 2)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([[0.0, 0.5]], np.float32), "floating-point pixels"),
        (np.array([[0, 65536]], np.int32), "integer pixels from 0 to 65536; expected 16 bits"),
        (np.array([[-1, 5]], np.int32), "integer pixels from -1 to 5"),
    ],
)
def test_pixels_that_do_not_fit_into_8_bits_are_refused(tmp_path, pixels, message):
    path = save(tmp_path, Image.fromarray(pixels), "tif")
    with pytest.raises(ValueError, match=f"{path}: .*{message}"):
        read_image(path, "RGB")
    with pytest.raises(ValueError, match=rf"image 7 \({path}\): .*{message}"):
        make_mapper()({"file_name": path, "image_id": 7, "height": 1, "width": 2})


# Sizes


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(1, 5000, (1, 1333)), (5000, 1, (1333, 1)), (1, 1, (800, 800))],
)
def test_no_side_is_resized_to_nothing(tmp_path, height, width, expected):
    box = annotation(0, 0, width, height)
    dataset_dict = write_image(tmp_path, height, width, [box])
    result = make_mapper(T.ResizeShortestEdge(800, max_size=1333))(dataset_dict)
    assert result["image"].shape == (3, *expected)
    assert result["instances"].gt_boxes.tensor.tolist() == [[0, 0, *expected[::-1]]]


def test_a_resize_to_0_means_none(tmp_path):
    """As in Detectron2: INPUT.MIN_SIZE_TEST 0."""
    assert make_mapper(T.ResizeShortestEdge(0))(write_image(tmp_path))["image"].shape == (3, 40, 60)


# Errors


def whole_jpeg(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with open(save(tmp_path, Image.fromarray(pixels), "jpg"), "rb") as f:
        return f.read()


BROKEN = {
    "truncated jpeg": (lambda path: whole_jpeg(path)[:1500], "OSError: image file is truncated"),
    "text": (lambda path: b"no image", "UnidentifiedImageError: cannot identify"),
    "empty": (lambda path: b"", "UnidentifiedImageError: cannot identify"),
    "header only": (lambda path: whole_jpeg(path)[:20], "Error: "),
}


@pytest.mark.parametrize("content", BROKEN)
def test_files_that_cannot_be_read(tmp_path, content):
    make, message = BROKEN[content]
    path = tmp_path / "broken.jpg"
    path.write_bytes(make(tmp_path))
    dataset_dict = {"file_name": str(path), "image_id": 7, "height": 64, "width": 64}
    with pytest.raises(ValueError, match=rf"^image 7 \({path}\): \w*{message}") as error:
        make_mapper()(dataset_dict)
    assert type(error.value) is ValueError
    assert error.value.__cause__ is not None
    with pytest.raises(ValueError, match=rf"^{path}: \w*{message}"):
        read_image(path, "BGR")


def test_a_missing_file(tmp_path):
    path = str(tmp_path / "gone.jpg")
    with pytest.raises(FileNotFoundError, match=rf"^image 7 \({path}\): .*No such file"):
        make_mapper()({"file_name": path, "image_id": 7})
    with pytest.raises(FileNotFoundError, match=f"^no image file '{path}'$"):
        read_image(path)


def test_a_truncated_png(tmp_path):
    path = write_image(tmp_path)["file_name"]
    with open(path, "r+b") as f:
        f.truncate(2000)
    with pytest.raises(ValueError, match=rf"image 7 \({path}\): OSError"):
        make_mapper()({"file_name": path, "image_id": 7, "height": 40, "width": 60})


def fail(*args):
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 41}, r"SizeMismatchError: .*got \(60, 40\), expect \(60, 41\)"),
        (
            {"annotations": [annotation(1, 2, float("nan"), 4)]},
            r"box \[1, 2, nan, 4\] is not finite",
        ),
        ({"annotations": [annotation(1, 2, float("inf"), 4)]}, "is not finite"),
        (
            {"annotations": [annotation(1, 2, 3, 4), annotation(1, 2, 1e300, 4)]},
            "1e.300, 4. is not",
        ),
        ({"annotations": [annotation(1, 2, None, 4)]}, "NoneType"),
        ({"annotations": [{"bbox": [1, 2, 3, 4]}]}, "KeyError: 'bbox_mode'"),
        ({"annotations": [annotation(1, 2, 3, 4, "dog")]}, "ValueError: invalid literal.*'dog'"),
    ],
)
def test_other_failures_name_the_image(tmp_path, changes, message):
    dataset_dict = {**write_image(tmp_path), **changes}
    with pytest.raises(ValueError, match=rf"^image 7 \({dataset_dict['file_name']}\): .*{message}"):
        make_mapper(crowds="ignore")(dataset_dict)


def test_a_failing_augmentation_names_the_image(tmp_path):
    dataset_dict = write_image(tmp_path)
    augmentation = T.RandomFlip()
    augmentation.get_transform = fail
    with pytest.raises(ValueError, match="image 7 .*RuntimeError: on purpose"):
        make_mapper(augmentation)(dataset_dict)
    with pytest.raises(ValueError, match="image without id .no file name.: KeyError: 'file_name'"):
        make_mapper()({})
