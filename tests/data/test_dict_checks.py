"""The checks of a json hold for every dataset: dicts of a DatasetCatalog function."""

import copy

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from gfocal.data import detection_dataset_dicts
from tests.helpers.coco_files import register, valid_document, write_dataset


def _twelve(tmp_path):
    """Dicts with 12 boxes XYWH in the images of a json."""
    document = valid_document()
    document["annotations"] = [
        {"id": i, "image_id": (7, 3, 9)[i % 3], "category_id": 1 + 17 * (i % 2), "bbox": box}
        for i, box in enumerate([[20 + i, 18 + i, 14.0, 9.0] for i in range(12)])
    ]
    return copy.deepcopy(DatasetCatalog.get(register(write_dataset(tmp_path, document))))


@pytest.fixture
def own(tmp_path):
    """Registers dicts as a dataset of one's own, and loads them."""
    dicts = _twelve(tmp_path)

    def load(change=None, **options):
        if change is not None:
            change(dicts)
        DatasetCatalog.register("own", lambda: dicts)
        MetadataCatalog.get("own").thing_classes = ["person", "dog", "toothbrush"]
        return detection_dataset_dicts("own", **options)

    yield load
    if "own" in DatasetCatalog:
        DatasetCatalog.remove("own")
        MetadataCatalog.remove("own")


def _first(**values):
    def change(dicts):
        dicts[0]["annotations"][0].update(values)

    return change


def _all(**values):
    def change(dicts):
        for annotation in (a for image in dicts for a in image["annotations"]):
            annotation.update(values)

    return change


def test_right_dicts_are_taken(own, caplog):
    assert len(own()) == 3
    assert not [x for x in caplog.records if x.levelname == "WARNING"]


def test_boxes_of_another_mode(own):
    with pytest.raises(ValueError) as error:
        own(_all(bbox_mode=BoxMode.XYXY_ABS))
    message = str(error.value)
    assert message.startswith(
        "dataset 'own': the boxes look like XYWH (x0, y0, width, height), not"
    )
    assert "12 of 12 annotations (12 with an inverted box" in message and "image 3 (" in message
    assert "is it XYWH_ABS?" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_first(bbox=[20, 20, float("nan"), 30]), "1 with a non-finite box"),
        (_first(bbox=[20, 20, "a", 30]), "1 with a non-finite box"),
        (_first(bbox=[20, 20, 30]), "1 with a box of 3 numbers"),
        (_first(bbox=[20, 20, -3, 30]), "1 with a negative width or height"),
        (_first(bbox_mode=BoxMode.XYWH_REL), "1 with the bbox_mode .*XYWH_REL"),
        (_first(bbox_mode=None), "1 without bbox_mode"),
        (_first(bbox=None), "1 without bbox"),
        (_first(category_id=3), r"1 with a category_id outside 0\.\.2"),
        (_first(category_id=-1), r"1 with a category_id outside 0\.\.2"),
        (_first(category_id="dog"), "1 with a category_id that is no integer"),
    ],
)
def test_an_invalid_annotation_names_its_image(own, change, message):
    with pytest.raises(
        ValueError, match=rf"(?s)dataset 'own': invalid: 1 of 12.*\({message}.*image 3"
    ):
        own(change)


def test_classes_counted_from_1(own):
    def change(dicts):
        for number, image in enumerate(dicts):
            for annotation in image["annotations"]:
                annotation["category_id"] = 1 + number % 3

    with pytest.raises(ValueError, match="from 1 to 3: they look counted from 1; .* 0 to 2"):
        own(change)


def test_images(own):
    def change(dicts):
        dicts[0]["width"] = 61
        dicts[2]["image_id"] = dicts[1]["image_id"]

    message = r"(?s)1 of another size than its file, 1 duplicate image_id.*have this image_id"
    with pytest.raises(ValueError, match=message):
        own(change)


def test_a_missing_file(own):
    with pytest.raises(FileNotFoundError, match="image 3 .*the file is not there"):
        own(lambda dicts: dicts[0].update(file_name="/nowhere/a.jpg"))


def test_what_may_be_meant_is_a_warning(own, caplog):
    def change(dicts):
        dicts[0]["annotations"][0]["bbox"] = [20, 20, 0, 5]  # COCO has such boxes
        dicts.append(dicts[1])  # more often in the training
        del dicts[2]["image_id"]

    assert len(own(change)) == 4
    text = " ".join(record.message for record in caplog.records)
    assert "1 boxes without area" in text and "1 images are listed again" in text
    assert "1 images have no image_id" in text


def test_sizes_and_files_may_be_missing(own):
    def change(dicts):
        del dicts[0]["width"], dicts[0]["height"], dicts[1]["file_name"]

    assert len(own(change)) == 3


def test_the_look_at_the_files_can_be_left_out(own):
    assert len(own(lambda dicts: dicts[0].update(width=61), check=False)) == 3


@pytest.mark.parametrize(
    "values, reason",
    [
        ({"bbox": 5}, "non-finite box"),
        ({"bbox_mode": [1]}, r"bbox_mode \[1\]"),
        ({"category_id": [0]}, "category_id that is no integer"),
        ({"iscrowd": "0"}, "iscrowd not 0 or 1"),
        ({"iscrowd": None}, "iscrowd not 0 or 1"),
    ],
)
def test_mistyped_fields_of_an_annotation(own, values, reason):
    with pytest.raises(ValueError, match=f"dataset 'own': invalid: 1 of 12 annotations.*{reason}"):
        own(_first(**values))


@pytest.mark.parametrize(
    "values, reason",
    [
        ({"annotations": 5}, "annotations that are no list of dicts"),
        ({"annotations": [None]}, "annotations that are no list of dicts"),
        ({"image_id": [1]}, "image_id that is no number or string"),
        ({"width": [100]}, "width or height that is not positive or finite"),
        ({"height": None}, "width or height that is not positive or finite"),
    ],
)
def test_mistyped_fields_of_an_image(own, values, reason):
    with pytest.raises(ValueError, match=f"dataset 'own': invalid: 1 of 3 images.*{reason}"):
        own(lambda dicts: dicts[0].update(values))


def test_something_that_is_no_dict(own):
    with pytest.raises(ValueError, match=r"1 of 4 images \(1 not a dict\)\n.*dicts\[3\].*'a.jpg'"):
        own(lambda dicts: dicts.append(("a.jpg", 5)))


def test_a_box_outside_its_image_is_counted(own, caplog):
    own(_first(bbox=[5000.0, 10.0, 14.0, 9.0]))
    assert "1 boxes lie outside their images" in caplog.text
