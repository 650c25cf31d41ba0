"""Evaluation on the annotations as they were checked, whatever the json leaves out."""

import json
import shutil

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances

from gfocal.data import coco_evaluator, detection_dataset_dicts, read_coco_json
from gfocal.data.coco import check_dataset_files
from tests.helpers.coco_files import register, valid_document, write_dataset


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


def test_a_category_name_that_is_a_number_becomes_a_string(tmp_path):
    """Detectron2's histogram of the training set takes nothing else."""
    document = valid_document()
    document["categories"][1]["name"] = 7
    name = register(write_dataset(tmp_path, document))
    assert MetadataCatalog.get(name).thing_classes == ["7", "dog", "toothbrush"]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {1: 0, 18: 1, 90: 2}
    assert len(detection_dataset_dicts(name)) == 2
    assert _evaluate(name) == pytest.approx(100.0)


def test_evaluator_on_a_json_without_area_iscrowd_and_info(dataset):
    assert _evaluate(register(dataset)) == pytest.approx(100.0)


def test_evaluator_on_a_json_with_null_area_and_iscrowd(tmp_path):
    document = valid_document()
    for annotation in document["annotations"]:
        annotation.update(area=None, iscrowd=None)
    dataset = write_dataset(tmp_path, document)
    data = read_coco_json(*dataset)
    assert [a["area"] for a in data.annotations] == [20.5 * 30, 16 * 16, 30 * 30, 40 * 20]
    assert {a["iscrowd"] for a in data.annotations} == {0}
    assert _evaluate(register(dataset)) == pytest.approx(100.0)


def test_evaluator_counts_the_annotation_with_id_0(tmp_path):
    """pycocotools takes id 0 for "not matched"."""
    document = valid_document()
    for number, annotation in enumerate(document["annotations"]):
        annotation["id"] = number
    assert _evaluate(register(write_dataset(tmp_path, document))) == pytest.approx(100.0)


def test_evaluator_leaves_out_what_was_dropped(tmp_path):
    document = valid_document()
    document["images"][1]["file_name"] = "gone.jpg"
    document["annotations"].append(
        {"id": 9, "image_id": 7, "category_id": 1, "bbox": [0, 0, float("nan"), 4]}
    )
    name = register(write_dataset(tmp_path, document), on_invalid="drop")
    assert _evaluate(name) == pytest.approx(100.0)


def test_evaluator_writes_the_original_category_ids(dataset, tmp_path):
    name = register(dataset)
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
    dicts = DatasetCatalog.get(register(dataset))
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
    assert coco_evaluator(register(dataset))._use_fast_impl == compiled
