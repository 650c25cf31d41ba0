"""COCO json files: what is right is read as Detectron2 reads it, what is wrong is named."""

import json
import logging
import re
import shutil

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.structures import Boxes, BoxMode, Instances

from gfocal.data import coco
from gfocal.data.coco import (
    check_dataset_files,
    coco_evaluator,
    coco_num_classes,
    detection_dataset_dicts,
    read_coco_json,
    register_coco_json,
)
from tests.helpers.coco_files import valid_document, write_dataset


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path, valid_document())


def _register(dataset, name="mine", **kwargs):
    json_file, image_root = dataset
    return register_coco_json(name, json_file=json_file, image_root=image_root, **kwargs)


# What is right


def test_the_same_dicts_as_detectron2(dataset):
    json_file, image_root = dataset
    ours = DatasetCatalog.get(_register(dataset))
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
    assert _register(dataset) == "mine"
    MetadataCatalog.get("mine").thing_colors = [(1, 2, 3)]
    assert _register(dataset) == "mine"
    assert MetadataCatalog.get("mine").thing_colors == [(1, 2, 3)]
    (tmp_path / "images" / "b.jpg").unlink()
    _register(dataset)  # images are looked for when the dataset is loaded
    with pytest.raises(FileNotFoundError):
        DatasetCatalog.get("mine")


def test_the_same_name_with_other_files_replaces(dataset, tmp_path):
    _register(dataset)
    document = valid_document()
    document["images"] = document["images"][:1]
    document["annotations"] = document["annotations"][:2]
    other = write_dataset(tmp_path, document, "other")
    _register(other)
    assert len(DatasetCatalog.get("mine")) == 1
    assert MetadataCatalog.get("mine").json_file == other[0]


def test_a_foreign_name_is_not_replaced(dataset):
    with pytest.raises(ValueError, match="'coco_2017_val' is taken"):
        _register(dataset, "coco_2017_val")


def test_num_classes(dataset):
    assert coco_num_classes(dataset[0]) == 3
    _register(dataset, num_classes=3)
    with pytest.raises(ValueError, match=r"num_classes is 7, but .*train\.json has 3 categories"):
        _register(dataset, num_classes=7)


def test_a_changed_json_is_read_again(dataset, tmp_path):
    assert coco_num_classes(dataset[0]) == 3
    document = valid_document()
    document["categories"].append({"id": 2, "name": "bicycle"})
    write_dataset(tmp_path, document)
    assert coco_num_classes(dataset[0]) == 4


def test_a_changed_json_is_registered_again(dataset, tmp_path):
    _register(dataset)
    document = valid_document()
    document["categories"][0]["name"] = "hairbrush"
    write_dataset(tmp_path, document)
    _register(dataset)
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
        _register(dataset, same_categories_as=other[0])


def test_the_order_of_categories_does_not_matter(dataset, tmp_path):
    document = valid_document()
    document["categories"].reverse()
    other = write_dataset(tmp_path, document, "val")
    assert _register(other, same_categories_as=dataset[0]) == "mine"


def test_images_without_annotations_key(tmp_path):
    document = valid_document()
    del document["annotations"]
    name = _register(write_dataset(tmp_path, document))
    assert [image["annotations"] for image in DatasetCatalog.get(name)] == [[], [], []]


# What is wrong with paths and files


def test_missing_paths(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no COCO json '/.*nowhere\.json'"):
        _register((str(tmp_path / "nowhere.json"), dataset[1]))
    with pytest.raises(FileNotFoundError, match="dataset 'mine': no image folder '/.*nowhere'"):
        _register((dataset[0], str(tmp_path / "nowhere")))
    for paths in (("", dataset[1]), (dataset[0], "")):
        with pytest.raises(ValueError, match=r"dataset 'mine' has no .*data\.val_images=\.\.\."):
            _register(paths)
    with pytest.raises(ValueError, match=r"number of classes.*data\.train_json=\.\.\."):
        coco_num_classes("")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON: .*line 1"),
        ("[" * 10**5, "not valid JSON: maximum recursion depth exceeded"),
        ("[]", "is a JSON list; a COCO instances json is an object"),
        ('{"images": {}, "categories": []}', "no list of objects 'images'"),
        ('{"images": [3], "categories": []}', "no list of objects 'images'"),
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
        ("images", "height", r"images\[0\] \(id 7, image id -\) has no height"),
        ("annotations", "bbox", r"annotations\[0\] \(id 1, image id 7\) has no bbox"),
        ("annotations", "image_id", r"annotations\[0\] \(id 1, image id -\) has no image_id"),
    ],
)
def test_missing_fields(tmp_path, kind, key, message):
    document = valid_document()
    del document[kind][0][key]
    for on_invalid in ("error", "drop"):  # no COCO json, rather than one with invalid entries
        with pytest.raises(ValueError, match=message):
            read_coco_json(*write_dataset(tmp_path, document), on_invalid)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("images", "id", [7]),
        ("images", "id", None),
        ("images", "file_name", 5),
        ("annotations", "image_id", {"a": 1}),
        ("annotations", "category_id", [1]),
        ("annotations", "id", [1]),
        ("annotations", "area", "large"),
        ("annotations", "iscrowd", "yes"),
        ("categories", "id", [1]),
        ("categories", "name", ["dog"]),
    ],
)
def test_fields_of_a_wrong_type(tmp_path, kind, key, value):
    document = valid_document()
    document[kind][0][key] = value
    paths = write_dataset(tmp_path, document)
    message = rf"train\.json: {kind}\[0\] \(id .*has a {key} of type {type(value).__name__}"
    with pytest.raises(ValueError, match=message):
        read_coco_json(*paths, on_invalid="drop")


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


def test_a_category_name_that_is_a_number_becomes_a_string(tmp_path):
    """Detectron2's histogram of the training set takes nothing else."""
    document = valid_document()
    document["categories"][1]["name"] = 7
    name = _register(write_dataset(tmp_path, document))
    assert MetadataCatalog.get(name).thing_classes == ["7", "dog", "toothbrush"]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {1: 0, 18: 1, 90: 2}
    assert len(detection_dataset_dicts(name)) == 2
    assert _evaluate(name) == pytest.approx(100.0)


def _set(kind, index, **values):
    def change(document):
        document[kind][index].update(values)

    return change


INVALID = [
    (_set("images", 1, file_name="gone.jpg"), "image 3 (gone.jpg): no such file in /"),
    (_set("images", 1, file_name="gone/a.jpg"), "image 3 (gone/a.jpg): no such file in /"),
    (_set("images", 1, id=7), "image 7 (sub/a.jpg): b.jpg has the same id"),
    (_set("images", 1, width=0), "image 3 (sub/a.jpg): width, height are (0, 60)"),
    (_set("images", 1, width=10**400), "image 3 (sub/a.jpg): width, height are (100", "or finite"),
    (_set("images", 1, width=float("inf")), "image 3 (sub/a.jpg): width, height are (inf, 60)"),
    (_set("annotations", 1, image_id=8), "annotation 2 of image 8 (no file)", "unknown image"),
    (_set("annotations", 1, category_id=2), "annotation 2 of image 7 (b.jpg)", "category 2"),
    (_set("annotations", 1, category_id=2), "with an unknown category"),
    (_set("annotations", 1, bbox=[4, 8, 0, 9]), "annotation 2 of image 7 (b.jpg)", "degenerate"),
    (_set("annotations", 1, bbox=[4, 8, 9, -1]), "bbox [4, 8, 9, -1]", "degenerate"),
    (_set("annotations", 1, bbox=[4, float("nan"), 9, 9]), "annotation 2 of", "non-finite"),
    (_set("annotations", 1, bbox=[4, 8, float("inf"), 9]), "annotation 2 of", "non-finite"),
    (_set("annotations", 1, bbox=[4, 8, 9]), "annotation 2 of", "bbox [4, 8, 9]", "non-finite"),
    (_set("annotations", 1, bbox=[4, 8, None, 9]), "annotation 2 of", "non-finite"),
    (_set("annotations", 1, bbox="box"), "annotation 2 of", "non-finite"),
    (_set("annotations", 1, bbox=[64, 8, 9, 9]), "annotation 2 of", "outside the image"),
    (_set("annotations", 1, bbox=[4, 8, 10**400, 9]), "annotation 2 of", "non-finite"),
    (_set("annotations", 1, area=float("nan")), "annotation 2 of", "with an area negative or"),
    (_set("annotations", 1, area=float("inf")), "annotation 2 of", "with an area negative or"),
    (_set("annotations", 1, area=-1), "annotation 2 of", "with an area negative or not finite"),
    (_set("annotations", 1, area=10**400), "annotation 2 of", "with an area negative or not fin"),
    (_set("annotations", 1, iscrowd=float("nan")), "annotation 2 of", "with an iscrowd not 0 or 1"),
    (_set("annotations", 1, iscrowd=0.5), "annotation 2 of", "with an iscrowd not 0 or 1"),
    (_set("annotations", 1, iscrowd=2), "annotation 2 of", "with an iscrowd not 0 or 1"),
    (_set("annotations", 1, bbox=[-9, 8, 9, 9]), "annotation 2 of", "outside the image"),
    (_set("annotations", 1, bbox=[4, 48, 9, 9]), "annotation 2 of", "outside the image"),
    (_set("annotations", 1, bbox=[4, -9, 9, 9]), "annotation 2 of", "outside the image"),
    (_set("annotations", 1, id=1), "annotation 1 of image 7 (b.jpg)", "with the id of another"),
    (_set("annotations", 1, ignore=1), "annotation 2 of image 7 (b.jpg)", "flagged ignore"),
]


@pytest.mark.parametrize("case", INVALID, ids=lambda case: " ".join(case[1:]))
def test_invalid_entries_are_errors_or_dropped(tmp_path, caplog, case):
    change, *expected = case
    document = valid_document()
    change(document)
    paths = write_dataset(tmp_path, document)
    kind = FileNotFoundError if "no such file" in expected[0] else ValueError
    with pytest.raises(kind) as error:
        read_coco_json(*paths)
    for part in (paths[0], *expected):
        assert part in str(error.value)

    with caplog.at_level(logging.WARNING, "gfocal.data.coco"):
        data = read_coco_json(*paths, on_invalid="drop")
    (record,) = caplog.records
    assert f"{paths[0]}: dropped 1 of " in record.message
    if "image 3" in expected[0] or "sub/a.jpg" in expected[0]:
        assert [image["id"] for image in data.images] == [7, 9]
        assert [a["id"] for a in data.annotations if a["image_id"] == 3] == []
    else:
        assert [a["bbox"] for a in data.annotations if a["image_id"] == 7] == [[4, 5, 20.5, 30]]
        assert len(data.images) == 3 and len(data.annotations) == 3


def test_drops_are_counted_by_reason(tmp_path, caplog):
    document = valid_document()
    document["images"][1]["file_name"] = "gone.jpg"  # takes annotations 5 and 6 with it
    document["annotations"][0]["bbox"] = [0, 0, 0, 5]
    paths = write_dataset(tmp_path, document)
    data = read_coco_json(*paths, on_invalid="drop")
    (record,) = caplog.records
    assert record.message == (
        f"{paths[0]}: dropped 1 of 3 images (1 without a file) and 3 of 4 annotations "
        "(2 of a left out image, 1 with a degenerate box)"
    )
    assert [image["id"] for image in data.images] == [7, 9]
    assert [a["id"] for a in data.annotations] == [2]


def test_many_errors_are_summed_up(tmp_path):
    document = valid_document()
    document["annotations"] = [
        {"id": i, "image_id": 7, "category_id": 1, "bbox": [1, 1, 0, 0]} for i in range(100)
    ]
    with pytest.raises(ValueError) as error:
        read_coco_json(*write_dataset(tmp_path, document))
    lines = str(error.value).splitlines()
    assert "100 of 100 annotations (100 with a degenerate box)" in lines[0]
    assert "annotation 0 of image 7" in lines[1]
    assert lines[-2:] == [
        "  ... and 95 more",
        'on_invalid="drop" (in custom_coco.py data.on_invalid=drop) leaves them out',
    ]


def test_a_box_that_reaches_out_of_its_image_is_valid(dataset):
    data = read_coco_json(*dataset)
    assert data.annotations[3]["bbox"] == [30, 30, 40, 20]  # 60 px wide: reaches out by 10


def test_unknown_on_invalid(dataset):
    with pytest.raises(ValueError, match=r"on_invalid is 'ignore'; expected \"error\" or \"drop\""):
        _register(dataset, on_invalid="ignore")


# Datasets that Detectron2 knows


def test_missing_builtin_dataset_says_where_it_looked(monkeypatch, tmp_path):
    metadata = MetadataCatalog.get("coco_2017_val")
    if re.match(r"/|\w+://", metadata.json_file) and coco.PathManager.exists(metadata.json_file):
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
    _register(dataset)
    with pytest.raises(ValueError, match="named twice"):
        detection_dataset_dicts(["mine", "mine"])


def test_filter_empty(dataset):
    _register(dataset)
    assert [d["image_id"] for d in detection_dataset_dicts("mine")] == [3, 7]
    dicts = detection_dataset_dicts(["mine"], filter_empty=False)
    assert [d["image_id"] for d in dicts] == [3, 7, 9]


def test_images_of_crowds_alone_stay_where_crowds_are_ignored(tmp_path):
    document = valid_document()
    document["annotations"].pop()  # leaves image 3 its crowd
    _register(write_dataset(tmp_path, document))
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
    _register(dataset)
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


# Evaluation


def _evaluate(name, skip=()):
    """AP of detections that are the ground truth."""
    evaluator = coco_evaluator(name)
    evaluator.reset()
    for image in DatasetCatalog.get(name):
        truth = [a for a in image["annotations"] if not a["iscrowd"]]
        instances = Instances((image["height"], image["width"]))
        boxes = torch.tensor([a["bbox"] for a in truth]).reshape(-1, 4)
        boxes = BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
        instances.pred_boxes = Boxes(boxes)
        instances.pred_classes = torch.tensor([a["category_id"] for a in truth], dtype=torch.int64)
        instances.scores = torch.full((len(truth),), 0.9)
        evaluator.process([{"image_id": image["image_id"]}], [{"instances": instances}])
    return evaluator.evaluate()["bbox"]["AP"]


def test_evaluator_on_a_json_without_area_iscrowd_and_info(dataset):
    assert _evaluate(_register(dataset)) == pytest.approx(100.0)


def test_evaluator_on_a_json_with_null_area_and_iscrowd(tmp_path):
    document = valid_document()
    for annotation in document["annotations"]:
        annotation.update(area=None, iscrowd=None)
    dataset = write_dataset(tmp_path, document)
    data = read_coco_json(*dataset)
    assert [a["area"] for a in data.annotations] == [20.5 * 30, 16 * 16, 30 * 30, 40 * 20]
    assert {a["iscrowd"] for a in data.annotations} == {0}
    assert _evaluate(_register(dataset)) == pytest.approx(100.0)


def test_evaluator_counts_the_annotation_with_id_0(tmp_path):
    """pycocotools takes id 0 for "not matched"."""
    document = valid_document()
    for number, annotation in enumerate(document["annotations"]):
        annotation["id"] = number
    assert _evaluate(_register(write_dataset(tmp_path, document))) == pytest.approx(100.0)


def test_evaluator_leaves_out_what_was_dropped(tmp_path):
    document = valid_document()
    document["images"][1]["file_name"] = "gone.jpg"
    document["annotations"].append(
        {"id": 9, "image_id": 7, "category_id": 1, "bbox": [0, 0, float("nan"), 4]}
    )
    name = _register(write_dataset(tmp_path, document), on_invalid="drop")
    assert _evaluate(name) == pytest.approx(100.0)


def test_evaluator_writes_the_original_category_ids(dataset, tmp_path):
    name = _register(dataset)
    evaluator = coco_evaluator(name, output_dir=str(tmp_path / "inference"))
    evaluator.reset()
    instances = Instances((48, 64))
    instances.pred_boxes = Boxes(torch.tensor([[4.0, 5.0, 24.5, 35.0]]))
    instances.pred_classes, instances.scores = torch.tensor([2]), torch.tensor([0.5])
    evaluator.process([{"image_id": 7}], [{"instances": instances}])
    evaluator.evaluate()
    written = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert [(d["image_id"], d["category_id"]) for d in written] == [(7, 90)]
    assert written[0]["bbox"] == [4.0, 5.0, 20.5, 30.0]


def test_an_evaluation_leaves_no_file_in_the_metadata(dataset, tmp_path):
    """For a dataset without a json Detectron2 makes one, in a folder that may be removed."""
    dicts = DatasetCatalog.get(_register(dataset))
    DatasetCatalog.register("loose", lambda: dicts)
    try:
        MetadataCatalog.get("loose").thing_classes = ["person", "dog", "toothbrush"]
        for run in ("first", "second"):
            folder = tmp_path / run
            coco_evaluator("loose", output_dir=str(folder))
            assert (folder / "loose_coco_format.json").exists()
            assert MetadataCatalog.get("loose").get("json_file") is None
            shutil.rmtree(folder)
            check_dataset_files(["loose"])
    finally:
        DatasetCatalog.remove("loose")
        MetadataCatalog.remove("loose")


def test_fast_evaluation_is_used_where_it_is_compiled(dataset):
    try:
        from detectron2 import _C

        compiled = hasattr(_C, "COCOevalEvaluateImages")
    except ImportError:
        compiled = False
    assert coco_evaluator(_register(dataset))._use_fast_impl == compiled


def test_each_folder_is_looked_into_once(tmp_path, monkeypatch):
    """Not once for each image: COCO has 118,000 in one folder."""
    document = valid_document()
    document["images"] += [{**document["images"][0], "id": 100 + i} for i in range(50)]
    paths = write_dataset(tmp_path, document)
    looked_into = []
    original = coco.PathManager.ls
    monkeypatch.setattr(coco.PathManager, "ls", lambda p: looked_into.append(p) or original(p))
    read_coco_json(*paths)
    assert sorted(looked_into) == [f"{paths[1]}/", f"{paths[1]}/sub"]
