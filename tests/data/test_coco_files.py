"""One json, several, or none."""

import pytest
from detectron2.data import MetadataCatalog

from gfocal.data import detection_dataset_dicts, register_coco_json
from gfocal.data.coco_files import num_classes_of, register_coco_jsons
from tests.helpers.coco_files import valid_document, write_dataset


@pytest.fixture
def two(tmp_path):
    """Two jsons, of the first and of the other images, and their folder."""
    files = []
    for name, keep in (("a", {7}), ("b", {3, 9})):
        document = valid_document()
        document["images"] = [x for x in document["images"] if x["id"] in keep]
        document["annotations"] = [x for x in document["annotations"] if x["image_id"] in keep]
        file, folder = write_dataset(tmp_path, document, name)
        files.append(file)
    return files, folder


def test_several_jsons_are_several_datasets(two):
    files, folder = two
    for root in (folder, [folder], [folder, folder]):
        names = register_coco_jsons("several", json_file=files, image_root=root)
        assert names == ["several_1", "several_2"]
    dicts = detection_dataset_dicts(names, filter_empty=False)
    assert [x["image_id"] for x in dicts] == [7, 3, 9]
    assert detection_dataset_dicts([names], filter_empty=False) == dicts  # a LazyCall in a list
    assert MetadataCatalog.get("several_2").json_file == files[1]
    assert num_classes_of(files) == num_classes_of(files[0]) == 3


def test_one_json_keeps_its_name(two):
    files, folder = two
    for file in (files[0], files[:1]):
        assert register_coco_jsons("one", json_file=file, image_root=folder) == "one"


def test_none(two):
    assert register_coco_jsons("none", json_file="", image_root="", optional=True) == []
    with pytest.raises(ValueError, match=r"'none' has no json_file.*data\.train_json"):
        register_coco_jsons("none", json_file="", image_root="")
    with pytest.raises(ValueError, match="has no image_root"):
        register_coco_jsons("none", json_file=two[0][0], image_root="", optional=True)


def test_what_does_not_fit_together(two, tmp_path):
    files, folder = two
    with pytest.raises(ValueError, match=r"2 jsons and 3 folders.*data\.train_images=\[a_images"):
        register_coco_jsons("x", json_file=files, image_root=[folder] * 3)
    with pytest.raises(ValueError, match="a json is named twice"):
        register_coco_jsons("x", json_file=[files[0]] * 2, image_root=folder)
    document = valid_document()
    document["categories"][0]["name"] = "cat"
    other, _ = write_dataset(tmp_path, document, "other")
    message = r"other\.json .*a\.json .*same categories.*cat"
    with pytest.raises(ValueError, match=message):
        register_coco_jsons("x", json_file=[files[0], other], image_root=folder)
    with pytest.raises(TypeError, match="json_file is .* expected one path .*register_coco_jsons"):
        register_coco_json("x", json_file=files, image_root=folder)
