"""Ids that differ in type are matched; ids that nothing uses may repeat; names may not."""

import pytest

from gfocal.data import read_coco_json
from tests.helpers.coco_files import valid_document, write_dataset


@pytest.mark.parametrize("ids", [[0, 1, 0, 1], [3, 3, 3, 3], [None, 1, 2, 3], [[1], 1, 2, 3]])
def test_ids_of_annotations_are_given_anew(tmp_path, caplog, ids):
    document = valid_document()
    for annotation, value in zip(document["annotations"], ids):
        annotation["id"] = value
    data = read_coco_json(*write_dataset(tmp_path, document))
    assert [annotation["id"] for annotation in data.annotations] == [1, 2, 3, 4]
    (record,) = caplog.records
    assert "not unique, or missing; nothing uses them" in record.message
    assert "drop" not in record.message


@pytest.mark.parametrize("key", ["image_id", "category_id"])
@pytest.mark.parametrize("kind", [str, float])
def test_ids_of_another_type_are_matched(tmp_path, caplog, key, kind):
    document = valid_document()
    right = read_coco_json(*write_dataset(tmp_path, document))
    for annotation in document["annotations"]:
        annotation[key] = kind(annotation[key])
    data = read_coco_json(*write_dataset(tmp_path, document))
    assert data.annotations == right.annotations
    if kind is str:
        (record,) = caplog.records
        assert f"4 annotations have a {key} of another type" in record.message
        assert "(str)" in record.message and "(int); they are matched" in record.message


def test_images_with_strings_as_ids(tmp_path):
    document = valid_document()
    for image in document["images"]:
        image["id"] = str(image["id"])
    data = read_coco_json(*write_dataset(tmp_path, document))
    assert [a["image_id"] for a in data.annotations] == ["7", "7", "3", "3"]


def test_an_unknown_id_is_shown_with_its_type(tmp_path):
    document = valid_document()
    document["annotations"][0]["image_id"] = "007"
    with pytest.raises(ValueError, match="annotation 1 of image '007' .* of an unknown image"):
        read_coco_json(*write_dataset(tmp_path, document))


@pytest.mark.parametrize("name", ["person", 7])
def test_two_categories_of_one_name(tmp_path, name):
    document = valid_document()
    document["categories"][0]["name"] = name
    document["categories"][1]["name"] = str(name)
    message = rf"not unique: {name} \(id 1: 1 annotations, id 90: 1 annotations\)"
    with pytest.raises(ValueError, match=message):
        read_coco_json(*write_dataset(tmp_path, document), on_invalid="drop")
