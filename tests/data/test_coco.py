"""COCO datasets in Detectron2's catalogs: as Detectron2 reads them; a missing file is named."""

import re

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from gfocal.data import coco_evaluator, coco_num_classes, detection_dataset_dicts
from gfocal.data.coco import check_dataset_files
from tests.helpers.coco_files import register, valid_document, write_dataset


def test_the_same_dicts_as_detectron2(dataset):
    json_file, image_root = dataset
    ours = DatasetCatalog.get(register(dataset))
    theirs = load_coco_json(json_file, image_root, "coco_reference")
    for image in theirs:
        for annotation in image["annotations"]:
            annotation.setdefault("iscrowd", 0)
    assert ours == theirs
    # By hand: images by ascending id, category ids 1, 18, 90 are classes 0, 1, 2.
    assert [image["image_id"] for image in ours] == [3, 7, 9]
    assert [a["category_id"] for a in ours[1]["annotations"]] == [2, 0]
    assert ours[1]["annotations"][0]["bbox"] == [4, 5, 20.5, 30]
    assert ours[1]["annotations"][0]["bbox_mode"] == BoxMode.XYWH_ABS
    assert [a["iscrowd"] for a in ours[0]["annotations"]] == [1, 0]
    assert ours[2]["annotations"] == []
    metadata, reference = MetadataCatalog.get("mine"), MetadataCatalog.get("coco_reference")
    assert metadata.thing_classes == reference.thing_classes == ["person", "dog", "toothbrush"]
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 18: 1, 90: 2}
    assert metadata.evaluator_type == "coco" and metadata.json_file == json_file
    MetadataCatalog.remove("coco_reference")


def test_registration_is_lazy_and_idempotent(dataset, tmp_path):
    assert register(dataset) == "mine"
    MetadataCatalog.get("mine").thing_colors = [(1, 2, 3)]
    assert register(dataset) == "mine"
    assert MetadataCatalog.get("mine").thing_colors == [(1, 2, 3)]
    (tmp_path / "images" / "b.jpg").unlink()
    register(dataset)  # images are looked for when the dataset is loaded
    with pytest.raises(FileNotFoundError):
        DatasetCatalog.get("mine")


def test_the_same_name_with_other_files_replaces(dataset, tmp_path):
    register(dataset)
    document = valid_document()
    document["images"] = document["images"][:1]
    document["annotations"] = document["annotations"][:2]
    other = write_dataset(tmp_path, document, "other")
    register(other)
    assert len(DatasetCatalog.get("mine")) == 1
    assert MetadataCatalog.get("mine").json_file == other[0]


def test_a_foreign_name_is_not_replaced(dataset):
    with pytest.raises(ValueError, match="'coco_2017_val' is taken"):
        register(dataset, "coco_2017_val")


def test_num_classes(dataset):
    assert coco_num_classes(dataset[0]) == 3
    register(dataset, num_classes=3)
    with pytest.raises(ValueError, match=r"num_classes is 7, but .*train\.json has 3 categories"):
        register(dataset, num_classes=7)


def test_a_changed_json_is_registered_again(dataset, tmp_path):
    register(dataset)
    document = valid_document()
    document["categories"][0]["name"] = "hairbrush"
    write_dataset(tmp_path, document)
    register(dataset)
    assert MetadataCatalog.get("mine").thing_classes == ["person", "dog", "hairbrush"]


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([(1, "person"), (18, "dog")], "3 categories.*2.*only in the first: toothbrush; only in "),
        ([(1, "person"), (18, "dog"), (90, "cat")], "first: toothbrush; only in the second: cat"),
        ([(1, "dog"), (18, "person"), (90, "toothbrush")], "1: person / dog, 18: dog / person"),
    ],
)
def test_train_and_val_must_have_the_same_categories(dataset, tmp_path, categories, message):
    document = valid_document()
    document["categories"] = [{"id": i, "name": name} for i, name in categories]
    other = write_dataset(tmp_path, document, "val")
    with pytest.raises(ValueError, match=message):
        register(dataset, same_categories_as=other[0])


def test_the_order_of_categories_does_not_matter(dataset, tmp_path):
    document = valid_document()
    document["categories"].reverse()
    other = write_dataset(tmp_path, document, "val")
    assert register(other, same_categories_as=dataset[0]) == "mine"


def test_images_without_annotations_key(tmp_path):
    document = valid_document()
    del document["annotations"]
    name = register(write_dataset(tmp_path, document))
    assert [image["annotations"] for image in DatasetCatalog.get(name)] == [[], [], []]


def test_missing_paths(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no COCO json '/.*nowhere\.json'"):
        register((str(tmp_path / "nowhere.json"), dataset[1]))
    with pytest.raises(FileNotFoundError, match="dataset 'mine': no image folder '/.*nowhere'"):
        register((dataset[0], str(tmp_path / "nowhere")))
    for paths in (("", dataset[1]), (dataset[0], "")):
        with pytest.raises(ValueError, match=r"dataset 'mine' has no .*data\.val_images=\.\.\."):
            register(paths)
    with pytest.raises(ValueError, match=r"number of classes.*data\.train_json=\.\.\."):
        coco_num_classes("")


def test_unknown_on_invalid(dataset):
    with pytest.raises(ValueError, match=r"on_invalid is 'ignore'; expected \"error\" or \"drop\""):
        register(dataset, on_invalid="ignore")


def test_missing_builtin_dataset_says_where_it_looked(monkeypatch, tmp_path):
    metadata = MetadataCatalog.get("coco_2017_val")
    if re.match(r"/|\w+://", metadata.json_file) and PathManager.exists(metadata.json_file):
        pytest.skip("COCO is on this machine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    with pytest.raises(FileNotFoundError) as error:
        detection_dataset_dicts("coco_2017_val")
    message = str(error.value)
    assert "coco/annotations/instances_val2017.json' is not there" in message
    assert f"DETECTRON2_DATASETS (not set, hence {str(tmp_path / 'datasets')!r})" in message
    assert "data.train_json=..." in message
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data")
    with pytest.raises(FileNotFoundError, match=r"DETECTRON2_DATASETS \(now '/data'\)"):
        coco_evaluator("coco_2017_val")


def test_unknown_datasets_and_duplicates(dataset):
    with pytest.raises(ValueError, match=r"no dataset 'coco_2017_vla'.*did you mean.*2017_val"):
        check_dataset_files(["coco_2017_vla"])
    register(dataset)
    with pytest.raises(ValueError, match="named twice"):
        detection_dataset_dicts(["mine", "mine"])


def test_filter_empty(dataset):
    register(dataset)
    assert [d["image_id"] for d in detection_dataset_dicts("mine")] == [3, 7]
    dicts = detection_dataset_dicts(["mine"], filter_empty=False)
    assert [d["image_id"] for d in dicts] == [3, 7, 9]


def test_images_of_crowds_alone_stay_where_crowds_are_ignored(tmp_path):
    document = valid_document()
    document["annotations"].pop()  # leaves image 3 its crowd
    register(write_dataset(tmp_path, document))
    for crowds, expected in (("drop", [7]), ("ignore", [3, 7])):
        dicts = detection_dataset_dicts("mine", crowds=crowds)
        assert [d["image_id"] for d in dicts] == expected
        dicts = detection_dataset_dicts("mine", filter_empty=False, crowds=crowds)
        assert [d["image_id"] for d in dicts] == [3, 7, 9]
    with pytest.raises(ValueError, match="crowds .* is 'keep'; expected"):
        detection_dataset_dicts("mine", crowds="keep")


def test_nothing_to_train_on_names_dataset_and_json(tmp_path):
    document = valid_document()
    for annotation in document["annotations"]:
        annotation["iscrowd"] = 1
    dataset = write_dataset(tmp_path, document)
    register(dataset)
    message = rf"no image with a box that is no crowd in mine \({re.escape(dataset[0])}\)"
    with pytest.raises(ValueError, match=message):
        detection_dataset_dicts("mine")
    assert len(detection_dataset_dicts("mine", filter_empty=False)) == 3
    write_dataset(tmp_path, {**document, "annotations": []})
    with pytest.raises(ValueError, match=message):
        detection_dataset_dicts("mine")
    message = rf"no image with a box in mine \({re.escape(dataset[0])}\): all are empty"
    with pytest.raises(ValueError, match=message):
        detection_dataset_dicts("mine", crowds="ignore")
    with pytest.raises(ValueError, match="no image in an empty list of datasets"):
        detection_dataset_dicts([], filter_empty=False)
