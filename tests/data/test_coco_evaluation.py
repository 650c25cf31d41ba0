"""Evaluation on the annotations as they were checked, whatever the json leaves out."""

import json
import math
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from pycocotools.cocoeval import COCOeval

from gfocal.data import (
    coco_evaluation,
    coco_evaluator,
    dataset_evaluator,
    detection_dataset_dicts,
    read_coco_json,
)
from gfocal.data.coco import check_dataset_files
from gfocal.data.coco_evaluation import follow_limit, known_metrics
from gfocal.data.coco_limit import evaluate_results
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


@pytest.fixture
def loose(dataset):
    """Dicts that are registered as "loose", without a json. A test may change them."""
    dicts = DatasetCatalog.get(register(dataset))
    DatasetCatalog.register("loose", lambda: dicts)
    MetadataCatalog.get("loose").thing_classes = ["person", "dog", "toothbrush"]
    return dicts


def test_a_dataset_without_json_is_converted_anew(loose, tmp_path, caplog):
    """Detectron2 would find its conversion of the old labels in the same folder."""
    folder = str(tmp_path / "inference")
    before = dataset_evaluator("loose", output_dir=folder)
    loose[0]["annotations"][0]["bbox"] = [1.0, 2.0, 3.0, 4.0]
    after = dataset_evaluator("loose", output_dir=folder)
    assert [1.0, 2.0, 3.0, 4.0] in [x["bbox"] for x in after._coco_api.dataset["annotations"]]
    assert before._coco_api.dataset["annotations"] != after._coco_api.dataset["annotations"]
    assert "cached" not in caplog.text
    # The file is gone, so its name must be too.
    assert MetadataCatalog.get("loose").get("json_file") is None
    check_dataset_files(["loose"])


def test_the_type_of_the_dataset_decides(loose, tmp_path, monkeypatch):
    metadata = MetadataCatalog.get("loose")
    metadata.evaluator_type = "lvis"
    metadata.json_file = str(tmp_path / "lvis.json")
    (tmp_path / "lvis.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "lvis", None)
    with pytest.raises(ModuleNotFoundError, match="type 'lvis', which needs .* pip install lvis"):
        dataset_evaluator("loose")
    made = {}

    class Lvis:
        def __init__(self, name, output_dir=None, max_dets_per_image=None):
            made[name] = (output_dir, max_dets_per_image)

    monkeypatch.setattr(coco_evaluation, "_LVIS", Lvis)
    assert isinstance(coco_evaluator("loose", output_dir="x"), Lvis)  # the old name too
    assert made["loose"] == ("x", None)
    dataset_evaluator("loose", max_detections=300)
    assert made["loose"] == (None, None)  # as LVIS counts
    dataset_evaluator("loose", max_detections=500)
    assert made["loose"] == (None, 500)
    monkeypatch.setattr(coco_evaluation, "_LVIS", lambda name, output_dir: None)
    with pytest.raises(ValueError, match="500 detections an image, and this Detectron2"):
        dataset_evaluator("loose", max_detections=500)


def test_lvis_itself(loose, tmp_path):
    """Perfect detections, of categories whose ids are those of the classes and 1 more."""
    pytest.importorskip("lvis")
    names = MetadataCatalog.get("loose").thing_classes
    images = [
        {"id": x["image_id"], "height": x["height"], "width": x["width"]}
        | {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        for x in loose
    ]
    categories = [
        {"id": i, "name": name, "frequency": "f", "image_count": 1}
        for i, name in enumerate(names, 1)
    ]
    annotations = [
        {"image_id": x["image_id"], "category_id": a["category_id"] + 1, "bbox": a["bbox"]}
        | {"id": 10 * i + j + 1, "area": a["bbox"][2] * a["bbox"][3], "segmentation": []}
        for i, x in enumerate(loose)
        for j, a in enumerate(x["annotations"])
        if not a["iscrowd"]  # LVIS has none
    ]
    document = {"images": images, "categories": categories, "annotations": annotations}
    (tmp_path / "lvis.json").write_text(json.dumps(document))
    metadata = MetadataCatalog.get("loose")
    metadata.set(json_file=str(tmp_path / "lvis.json"), evaluator_type="lvis")
    assert _evaluate("loose") == pytest.approx(100.0)


def test_results_of_lvis_have_standard_deviations():
    """Without the package lvis, which only an evaluation needs."""
    evaluator = coco_evaluation._LVIS.__new__(coco_evaluation._LVIS)
    evaluator._cpu_device = torch.device("cpu")
    evaluator.reset()
    instances = Instances((48, 64), pred_boxes=Boxes(torch.tensor([[4.0, 5, 24, 35]])))
    instances.pred_classes, instances.scores = torch.tensor([0]), torch.tensor([0.5])
    instances.pred_box_stds = torch.tensor([[1.0, 2, 3, 0.25]])
    evaluator.process([{"image_id": 7}], [{"instances": instances}])
    assert evaluator._predictions[0]["instances"][0]["bbox_std"] == [1, 2, 3, 0.25]


def test_types_that_boxes_cannot_be_evaluated_for(loose):
    MetadataCatalog.get("loose").evaluator_type = "pascal_voc"
    with pytest.raises(ValueError, match="its metadata no dirname, year, split; expected"):
        dataset_evaluator("loose")
    del MetadataCatalog.get("loose").evaluator_type
    MetadataCatalog.get("loose").evaluator_type = "cityscapes_sem_seg"
    with pytest.raises(ValueError, match="'loose' has the evaluator_type 'cityscapes_sem_seg'"):
        dataset_evaluator("loose")


def test_pascal_voc(tmp_path):
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/val.txt").write_text("a\n")
    (tmp_path / "Annotations/a.xml").write_text(
        "<annotation><object><name>cat</name><pose>x</pose><truncated>0</truncated>"
        "<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>10</xmax>"
        "<ymax>10</ymax></bndbox></object></annotation>"
    )
    register_pascal_voc("voc", str(tmp_path), "val", 2012, class_names=["cat"])
    MetadataCatalog.get("voc").evaluator_type = "pascal_voc"
    evaluator = dataset_evaluator("voc")
    evaluator.reset()
    instances = Instances((20, 20))
    instances.pred_boxes = Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
    instances.pred_classes, instances.scores = torch.tensor([0]), torch.tensor([0.5])
    evaluator.process([{"image_id": "a"}], [{"instances": instances}])
    assert evaluator.evaluate()["bbox"]["AP50"] == pytest.approx(100.0)
    assert known_metrics(evaluator) == {"bbox/AP", "bbox/AP50", "bbox/AP75"}


def crowded(folder, count=300):
    """One image with many objects, and perfect detections of it."""
    grid = [(16 * (i % 20), 16 * (i // 20)) for i in range(count)]
    document = valid_document()
    document["images"] = [{"id": 7, "file_name": "b.jpg", "width": 320, "height": 320}]
    document["categories"] = [{"id": 3, "name": "cell"}, {"id": 5, "name": "other"}]
    document["annotations"] = [
        {"id": i, "image_id": 7, "category_id": 3 if i % 3 else 5, "bbox": [x, y, 10 + i % 5, 12]}
        for i, (x, y) in enumerate(grid)
    ]
    dataset = write_dataset(folder, document)
    Image.new("RGB", (320, 320)).save(folder / "images/b.jpg")
    name = register(dataset)
    instances = Instances((320, 320))
    boxes = torch.tensor([x["bbox"] for x in document["annotations"]], dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2] + torch.arange(count)[:, None] % 4  # some less good
    instances.pred_boxes = Boxes(boxes)
    instances.scores = torch.linspace(0.9, 0.1, count)
    classes = [0 if x["category_id"] == 3 else 1 for x in document["annotations"]]
    instances.pred_classes = torch.tensor(classes)
    return name, instances


@pytest.mark.parametrize("limit", [None, 50, 100, 150, 300, 10**6])
def test_the_limit_of_the_model_counts(tmp_path, caplog, limit):
    """Equal to pycocotools called by hand, whose own summary of AP looks for 100."""
    name, instances = crowded(tmp_path)
    evaluator = dataset_evaluator(name, output_dir=str(tmp_path / "out"), max_detections=limit)
    evaluator._use_fast_impl = False
    evaluator.reset()
    evaluator.process([{"image_id": 7}], [{"instances": instances}])
    with caplog.at_level("INFO"):
        results = evaluator.evaluate()["bbox"]
    counted = max(limit or 0, 100)
    assert f"At most {counted} detections an image count" in caplog.text
    written = json.loads((tmp_path / "out/coco_instances_results.json").read_text())
    assert {x["category_id"] for x in written} == {3, 5}
    truth = evaluator._coco_api
    by_hand = COCOeval(truth, truth.loadRes(written), "bbox")
    by_hand.params.maxDets = [1, 10, counted]
    by_hand.evaluate()
    by_hand.accumulate()
    precision = by_hand.eval["precision"]  # (thresholds, recalls, classes, areas, limits)
    assert results["AP"] == 100 * precision[:, :, :, 0, 2].mean()
    assert results["AP50"] == 100 * precision[0, :, :, 0, 2].mean()
    assert results["AP75"] == 100 * precision[5, :, :, 0, 2].mean()
    assert results["APs"] == 100 * precision[:, :, :, 1, 2].mean()
    assert math.isnan(results["APl"])
    assert results["AP-cell"] == 100 * precision[:, :, 0, 0, 2].mean()
    assert (results["AP50"] > 99) == (counted >= 300)
    if counted > 100:
        stats = evaluate_results(truth, written, counted).stats
        by_hand.summarize()  # pycocotools' own numbers, but for the first
        np.testing.assert_array_equal(stats[1:], by_hand.stats[1:])


@pytest.mark.parametrize("limit", [100, 300])
def test_standard_deviations_are_written_and_change_no_metric(tmp_path, limit):
    name, instances = crowded(tmp_path)
    of_image_8 = instances[:0]
    found = {}
    for stds in (None, torch.arange(1200.0).view(300, 4) / 3):
        folder = tmp_path / f"with {stds is not None}"
        evaluator = dataset_evaluator(name, output_dir=str(folder), max_detections=limit)
        evaluator.reset()
        if stds is not None:
            instances.pred_box_stds, of_image_8.pred_box_stds = stds, stds[:0]
        # Detectron2 keeps nothing of an output without instances.
        images = [{"image_id": 9}, {"image_id": 8}, {"image_id": 7}]
        outputs = [{"sem_seg": 0}, {"instances": of_image_8}, {"instances": instances}]
        evaluator.process(images, outputs)
        metrics = evaluator.evaluate()["bbox"]
        rows = json.loads((folder / "coco_instances_results.json").read_text())
        found[stds is not None] = metrics, rows
    assert found[True][0] == pytest.approx(found[False][0], rel=0, abs=0, nan_ok=True)
    plain, rich = found[False][1], found[True][1]
    assert [x["bbox_std"] for x in rich[:2]] == [
        [0, 0.3333, 0.6667, 1],
        [1.3333, 1.6667, 2, 2.3333],
    ]
    assert len(rich) == len(plain) == 300 and not any("bbox_std" in x for x in plain)
    assert [{**x, "bbox_std": y["bbox_std"]} for x, y in zip(plain, rich)] == rich


def test_a_trainer_tells_the_limit(dataset):
    evaluator = dataset_evaluator(register(dataset))
    follow_limit(evaluator, Namespace(max_detections_per_image=250))
    assert evaluator.limit == 250
    follow_limit(evaluator, Namespace(max_detections_per_image=400))
    assert evaluator.limit == 250  # it was told
    other = dataset_evaluator(register(dataset))
    follow_limit(other, object())
    assert other.limit == 100
    follow_limit(other, Namespace(model=Namespace(max_detections_per_image=250)))  # augmented
    assert other.limit == 250
    follow_limit(object(), object())  # any evaluator


def test_detectron2s_own_evaluators_say_what_they_count(dataset, caplog):
    evaluator = COCOEvaluator(register(dataset))
    follow_limit(evaluator, Namespace(max_detections_per_image=100))
    assert "count" not in caplog.text
    follow_limit(evaluator, Namespace(max_detections_per_image=250))
    assert "up to 250 detections an image, and 100 of them count in COCOEvaluator" in caplog.text


def test_a_json_without_annotations_gives_no_metric(tmp_path):
    document = valid_document()
    del document["annotations"]
    evaluator = dataset_evaluator(register(write_dataset(tmp_path, document)))
    assert known_metrics(evaluator) == set()


def test_categories_that_no_metadata_maps_to_classes(loose, tmp_path):
    """Detectron2 would compare class 1 with category 1, which is class 0."""
    document = valid_document()
    for number, annotation in enumerate(document["annotations"]):
        annotation.update(id=number + 1, area=1.0, iscrowd=0)
    json_file = tmp_path / "loose.json"
    metadata = MetadataCatalog.get("loose")
    metadata.json_file = str(json_file)
    json_file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"category ids \[1, 18, 90\], and its metadata no"):
        dataset_evaluator("loose")
    index = {category["id"]: i for i, category in enumerate(document["categories"])}
    for entry in (*document["categories"], *document["annotations"]):
        key = "category_id" if "category_id" in entry else "id"
        entry[key] = index[entry[key]]
    json_file.write_text(json.dumps(document))
    dataset_evaluator("loose")


def test_without_a_detection(tmp_path):
    name, instances = crowded(tmp_path)
    evaluator = dataset_evaluator(name, max_detections=300)
    evaluator.reset()
    evaluator.process([{"image_id": 7}], [{"instances": instances[:0]}])
    assert math.isnan(evaluator.evaluate()["bbox"]["AP"])


def test_fast_evaluation_is_used_where_it_is_compiled(dataset):
    try:
        from detectron2 import _C

        compiled = hasattr(_C, "COCOevalEvaluateImages")
    except ImportError:
        compiled = False
    assert coco_evaluator(register(dataset))._use_fast_impl == compiled


@pytest.mark.parametrize("mode", [None, BoxMode.XYWH_REL])
def test_dicts_that_cannot_be_converted_are_named(mode):
    box = {"bbox": [1.0, 2.0, 8.0, 9.0], "bbox_mode": mode, "category_id": 0}
    image = {"file_name": "a.jpg", "image_id": 5, "height": 48, "width": 64, "annotations": [box]}
    DatasetCatalog.register("wrong_mode", lambda: [image])
    try:
        MetadataCatalog.get("wrong_mode").thing_classes = ["a"]
        with pytest.raises(
            ValueError, match=r"dataset 'wrong_mode'.*\n.*image 5 \(a.jpg\).*bbox_mode"
        ):
            dataset_evaluator("wrong_mode")
    finally:
        DatasetCatalog.remove("wrong_mode")
        MetadataCatalog.remove("wrong_mode")
