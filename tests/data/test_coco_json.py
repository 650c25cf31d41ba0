"""What is no COCO json is named."""

import pytest

from gfocal.data import coco_num_classes, read_coco_json
from tests.helpers.coco_files import valid_document, write_dataset


def test_a_changed_json_is_read_again(dataset, tmp_path):
    assert coco_num_classes(dataset[0]) == 3
    document = valid_document()
    document["categories"].append({"id": 2, "name": "bicycle"})
    write_dataset(tmp_path, document)
    assert coco_num_classes(dataset[0]) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON: .*line 1"),
        ("[" * 10**5, "not valid JSON: maximum recursion depth exceeded"),
        ("[]", "is a JSON list; a COCO instances json is an object"),
        ('{"images": {}, "categories": []}', "no list of objects 'images'"),
        ('{"images": [3], "categories": []}', "images.0. is '3'; expected an object"),
        ('{"images": []}', "no list of objects 'categories'"),
        ('{"images": [], "categories": []}', "has no categories"),
        (
            '{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "category ids are not unique",
        ),
        ('{"images": [], "categories": [{"id": 1}]}', r"categories\[0\] \(id 1.*has no name"),
    ],
)
def test_not_a_coco_json(tmp_path, content, message):
    file = tmp_path / "bad.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"bad.json.*{message}"):
        coco_num_classes(str(file))


def test_a_json_without_images(tmp_path):
    document = {**valid_document(), "images": [], "annotations": []}
    with pytest.raises(ValueError, match=r"train\.json has no usable image"):
        read_coco_json(*write_dataset(tmp_path, document))


@pytest.mark.parametrize(
    ("kind", "key", "message"),
    [
        ("images", "id", r"images\[0\] \(id 'missing', image id '-'\) has no id"),
        ("images", "height", r"images\[0\] \(id 7, image id '-'\) has no height"),
        ("images", "file_name", r"1 of 3 images \(1 without file_name\)"),
        ("annotations", "bbox", r"annotations\[0\] \(id 1, image id 7\) has no bbox"),
        ("annotations", "image_id", r"\[0\] \(id 1, image id '-'\) has no image_id"),
        ("annotations", "category_id", r"1 of 4 annotations \(1 without category_id\)"),
    ],
)
def test_missing_fields(tmp_path, kind, key, message):
    document = valid_document()
    del document[kind][0][key]
    paths = write_dataset(tmp_path, document)
    with pytest.raises(ValueError, match=message):
        read_coco_json(*paths)
    data = read_coco_json(*paths, on_invalid="drop")
    assert (len(data.images), len(data.annotations)) == ((2, 2) if kind == "images" else (3, 3))


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("images", "id", [7]),
        ("images", "id", None),
        ("images", "file_name", 5),
        ("annotations", "image_id", {"a": 1}),
        ("annotations", "category_id", [1]),
        ("annotations", "area", "large"),
        ("annotations", "iscrowd", "yes"),
    ],
)
def test_fields_of_a_wrong_type(tmp_path, kind, key, value):
    document = valid_document()
    document[kind][0][key] = value
    paths = write_dataset(tmp_path, document)
    message = rf"{kind}\[0\] \(id .*has a {key} of type {type(value).__name__}"
    with pytest.raises(ValueError, match=message):
        read_coco_json(*paths)
    data = read_coco_json(*paths, on_invalid="drop")
    assert (len(data.images), len(data.annotations)) == ((2, 2) if kind == "images" else (3, 3))


@pytest.mark.parametrize(("key", "value"), [("id", [1]), ("name", ["dog"])])
def test_a_category_of_a_wrong_type_is_never_dropped(tmp_path, key, value):
    document = valid_document()
    document["categories"][0][key] = value
    message = rf"train\.json: categories\[0\] \(id .*has a {key} of type list"
    with pytest.raises(ValueError, match=message):
        read_coco_json(*write_dataset(tmp_path, document), on_invalid="drop")


@pytest.mark.parametrize("kind", ["images", "categories"])
def test_ids_that_have_no_order(tmp_path, kind):
    document = valid_document()
    document[kind][0]["id"] = "7"
    with pytest.raises(ValueError, match=rf"the ids of the {kind} are numbers and strings"):
        read_coco_json(*write_dataset(tmp_path, document), on_invalid="drop")


def test_iscrowd_may_be_a_truth_value(tmp_path):
    document = valid_document()
    for annotation, value in zip(document["annotations"], (True, False, 1.0, None)):
        annotation["iscrowd"] = value
    data = read_coco_json(*write_dataset(tmp_path, document))
    assert [annotation["iscrowd"] for annotation in data.annotations] == [1, 0, 1, 0]


def test_a_byte_order_mark_of_windows_is_taken(tmp_path):
    dataset = write_dataset(tmp_path, valid_document())
    expected = read_coco_json(*dataset)
    path = tmp_path / "train.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert read_coco_json(*dataset) == expected


def test_a_record_that_is_no_object_is_named(tmp_path):
    document = valid_document()
    document["annotations"][2] = None
    with pytest.raises(ValueError, match=r"annotations\[2\] is 'None'; expected an object"):
        read_coco_json(*write_dataset(tmp_path, document))


def test_the_file_of_a_left_out_image_is_named(tmp_path):
    document = valid_document()
    document["images"][0]["width"] = 65
    with pytest.raises(
        ValueError, match=r"annotation 1 of image 7 \(b.jpg\).* of a left out image"
    ):
        read_coco_json(*write_dataset(tmp_path, document))
