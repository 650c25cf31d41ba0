"""The evaluator on a small dataset, with every number derived by hand."""

import json
import math
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from gfocal.data.coco_evaluation import coco_truth, known_metrics
from gfocal.inspect.reliability import DetectionReliabilityEvaluator
from gfocal.inspect.reliability.measuring import metric_names
from gfocal.modeling.representations import DiracDistance, GaussianDistance
from gfocal.process.groups import leave_process_group
from tests.helpers.coco_files import register, valid_document, write_dataset
from tests.helpers.spread import make_spread_gfl
from tests.helpers.tiny import make_head

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ["person", "dog", "toothbrush"]


@pytest.fixture
def dataset(tmp_path):
    """Image 7 has a toothbrush and a person, image 3 a dog and a crowd of dogs, image 9 nothing."""
    return register(write_dataset(tmp_path, valid_document()))


def detections(boxes, scores, classes, **fields):
    instances = Instances((64, 64))
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.tensor(scores)
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    for name, value in fields.items():
        instances.set(name, torch.as_tensor(value, dtype=torch.float32))
    return instances


# The toothbrush as it is; the upper half of the person, so that its bottom is 8 px too high; in
# image 3 a part of the crowd; in image 9 a person that is none.
STDS = [[1.0, 1, 1, 1], [1, 1, 1, 10]]
FOUND = {
    7: ([[4.0, 5, 24.5, 35], [40, 8, 56, 16]], [0.9, 0.7], [2, 0], STDS),
    3: ([[0.0, 0, 20, 20]], [0.8], [1], [[1.0] * 4]),
    9: ([[0.0, 0, 10, 10]], [0.4], [0], [[1.0] * 4]),
}


def evaluated(evaluator, found, stds=True, ids=(7, 3, 9)):
    evaluator.reset()
    for image_id in ids:
        boxes, scores, classes, of_sides = found[image_id]
        fields = {"pred_box_stds": of_sides} if stds else {}
        instances = detections(boxes, scores, classes, **fields)
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    return evaluator.evaluate()


def test_every_number(dataset, tmp_path):
    evaluator = DetectionReliabilityEvaluator(dataset, str(tmp_path / "out"))
    found = evaluated(evaluator, FOUND)["reliability"]
    assert [*found] == metric_names(NAMES, bins=False)
    nan, log = math.nan, math.log
    # Person: |.7 - .5| and |.4 - 0|; toothbrush: |.9 - 1|; of the dog there is no detection.
    errors = {"LaECE-person": 0.3, "LaECE-dog": nan, "LaECE-toothbrush": 0.1, "LaECE": 0.2}
    # The person alone: (.5 / .5) / 1, no better than nothing.
    lrps = {"oLRP-person": 1, "oLRP-dog": 1, "oLRP-toothbrush": 0, "oLRP": 2 / 3}
    # Half widths of 80 % are 1.14 std: all sides are inside, the 8 px as well (11.4). Those of
    # 50 % are .49 std: 4.9.
    # Laplace: 7 sides of log(2 / sqrt(2)), and one of log(20 / sqrt(2)) + 8 sqrt(2) / 10.
    laplace = (7 * log(2) / 2 + log(10 * math.sqrt(2)) + 0.8 * math.sqrt(2)) / 8
    # Gaussian: log(sqrt(2 pi)) each; one has log(10) + .8^2 / 2 more.
    gaussian = log(2 * math.pi) / 2 + (log(10) + 0.32) / 8
    expected = {
        "detections": 3,
        "objects": 3,
        "matched": 2,  # the crowd and its detection are out
        "LaACE": 0.2,
        "DECE": (0.1 + 0.3 + 0.4) / 3,
        **errors,
        **lrps,
        "mean_iou": 0.75,
        "iou_pearson": nan,
        "iou_spearman": nan,  # of two detections
        # ((1 - .5) / .5 + 1 + 1) / 4
        "LRP": 0.75,
        "LRP_localization": 0.25,
        "LRP_FP": 1 / 3,
        "LRP_FN": 1 / 3,
        # Of the toothbrush alone, as no detection of the others is better than none.
        "oLRP_localization": 0,
        "oLRP_FP": 0,
        "oLRP_FN": 2 / 3,
        "oLRP_score": 0.9,
        "std": 17 / 8,
        "error": 1,
        "std_spearman": 1,
        "AUSE": 0,
        **{f"std_spearman_{side}": nan for side in ("left", "top", "right", "bottom")},
        "coverage50": 7 / 8,
        "coverage80": 1,
        "coverage90": 1,
        "nll_laplace": laplace,
        "nll_gaussian": gaussian,
        "std_spearman-person": 1,
        "std_spearman-dog": nan,
        "std_spearman-toothbrush": nan,
        "coverage80-person": 1,
        "coverage80-dog": nan,
        "coverage80-toothbrush": 1,
        # Small: toothbrush (400 px^2), person (256), the false person (100). The dog has 800.
        "LaECE_small": 0.2,
        "oLRP_small": 2 / 3,
        "std_spearman_small": 1,
        "coverage80_small": 1,
    }
    expected |= {
        f"{x}_{size}": nan
        for x in ("LaECE", "oLRP", "std_spearman", "coverage80")
        for size in ("medium", "large")
    }
    assert found == pytest.approx(expected, nan_ok=True, rel=1e-5, abs=1e-7)

    report = json.loads((tmp_path / "out/reliability.json").read_text(), parse_constant=pytest.fail)
    assert report["metrics"]["LaECE"] == found["LaECE"]
    assert report["metrics"]["LaECE_large"] is None  # nan is no json
    assert report["classes"]["person"]["detections"] == 2
    assert report["sizes"]["small"]["objects"] == 3
    # In float32, .4 is above and .7 and .9 are below the edges of bins.
    assert report["curves"]["scores"]["counts"] == [0, 0, 0, 0, 1, 0, 1, 0, 1, 0]
    with Image.open(tmp_path / "out/reliability.png") as picture:
        assert picture.size == (1300, 1100)


def test_sizes_are_those_of_the_annotated_areas(tmp_path):
    """COCO's limits: medium from 32^2, large from 96^2 on. A false detection has its own area."""
    document = valid_document()
    for annotation, area in zip(document["annotations"], (32**2, 96**2, 5.0, 96**2 - 1)):
        annotation["area"] = float(area)
    name = register(write_dataset(tmp_path, document))
    evaluator = DetectionReliabilityEvaluator(name, str(tmp_path / "out"))
    evaluated(evaluator, FOUND)
    sizes = json.loads((tmp_path / "out/reliability.json").read_text())["sizes"]
    counts = {x: (sizes[x]["objects"], sizes[x]["detections"], sizes[x]["matched"]) for x in sizes}
    assert counts == {"small": (0, 1, 0), "medium": (2, 1, 1), "large": (1, 1, 1)}


def test_without_stds(dataset, caplog):
    with caplog.at_level("INFO"):
        found = evaluated(DetectionReliabilityEvaluator(dataset), FOUND, stds=False)["reliability"]
    assert [*found] == metric_names(NAMES, stds=False, bins=False)
    assert found["LaECE"] == pytest.approx(0.2)
    assert "no pred_box_stds" in caplog.text


def test_distributions(dataset):
    """All sides of the person at 9 px from where it has them, but the bottom: bins at 0, 10, 20 px
    before, at and beyond the side. The truth lies at 10, and 8 px further for the bottom."""
    boxes, scores, classes, stds = (x[1:] for x in FOUND[7])
    (box,) = boxes
    outward = np.array([-1.0, -1, 1, 1])[:, None]
    bin_edges = np.array(box)[:, None] + outward * np.array([-10.0, 0, 10])
    probabilities = np.tile([0.25, 0.5, 0.25], (4, 1))
    # Triangles of the bases 10, 20, 10: heights .05, .05, .05. So the density is uniform, and the
    # place of the truth is 1/2, for the bottom .5 + 8 * .05 = .9.
    instances = detections(
        *(boxes, scores, classes),
        pred_box_stds=stds,
        pred_box_distributions=probabilities[None],
        bin_edges=bin_edges[None],
    )
    evaluator = DetectionReliabilityEvaluator(dataset)
    assert known_metrics(evaluator) == {f"reliability/{x}" for x in metric_names(NAMES)}
    evaluator.process([{"image_id": 7}], [{"instances": instances}])
    found = evaluator.evaluate()["reliability"]
    assert [*found] == metric_names(NAMES)
    assert found["coverage50_bins"] == found["coverage50_bins"] == 0.75
    assert found["coverage90_bins"] == 1
    assert found["nll_bins"] == pytest.approx(math.log(20))
    assert found["outside_bins"] == 0

    # Bins that end 5 px beyond the side: the true bottom is outside.
    evaluator.reset()
    instances.bin_edges = torch.as_tensor(
        (np.array(box)[:, None] + outward * np.array([-5.0, 0, 5]))[None], dtype=torch.float32
    )
    evaluator.process([{"image_id": 7}], [{"instances": instances}])
    found = evaluator.evaluate()["reliability"]
    assert found["outside_bins"] == 0.25
    assert found["coverage90_bins"] == 0.75
    # The others have the density .1.
    assert found["nll_bins"] == pytest.approx((3 * math.log(10) + 6 * math.log(10)) / 4)


def test_nothing_was_found(dataset, tmp_path, caplog):
    """A number that nothing was measured for is nan, and no 0."""
    nothing = {key: ([], [], [], np.zeros((0, 4))) for key in FOUND}
    evaluator = DetectionReliabilityEvaluator(dataset, str(tmp_path / "out"))
    found = evaluated(evaluator, nothing)["reliability"]
    numbers = {k: v for k, v in found.items() if not math.isnan(v)}
    assert numbers == {
        "detections": 0,
        "objects": 3,
        "matched": 0,
        "LRP": 1,
        "LRP_FN": 1,
        "oLRP": 1,
        "oLRP_FN": 1,
        "oLRP_small": 1,
        **{f"oLRP-{name}": 1 for name in NAMES},
    }
    with Image.open(tmp_path / "out/reliability.png") as picture:
        assert picture.size == (660, 580)
    evaluator.reset()
    assert evaluator.evaluate() == {}
    assert "No image was evaluated" in caplog.text


def test_images_that_were_not_evaluated_count_as_not_found(dataset, caplog):
    found = evaluated(DetectionReliabilityEvaluator(dataset), FOUND, ids=(9,))["reliability"]
    assert (found["objects"], found["LRP_FN"]) == (3, 1)
    assert "2 images of 'mine' were not evaluated: their objects count as not found" in caplog.text


@pytest.mark.parametrize("iou_thresh", [0, 1, True, -0.5, math.nan])
def test_thresholds_that_are_none(dataset, iou_thresh):
    with pytest.raises(ValueError, match="iou_thresh is .*; expected a number between 0 and 1"):
        DetectionReliabilityEvaluator(dataset, iou_thresh=iou_thresh)


def test_another_threshold(dataset):
    """With .6 the half person is false; LaECE has its own threshold."""
    found = evaluated(DetectionReliabilityEvaluator(dataset, iou_thresh=0.6), FOUND)["reliability"]
    assert (found["matched"], found["LaECE"]) == (1, pytest.approx(0.2))


def test_detections_of_another_dataset(dataset):
    evaluator = DetectionReliabilityEvaluator(dataset)
    instances = detections([[0.0, 0, 9, 9]], [0.5], [3])
    with pytest.raises(ValueError, match="image 7: a detection has the class 3; .* has 3 classes"):
        evaluator.process([{"image_id": 7}], [{"instances": instances}])
    with pytest.raises(ValueError, match="image 8 was evaluated; dataset 'mine' has no such image"):
        evaluator.process([{"image_id": 8}], [{"instances": instances}])


def test_datasets_that_it_is_not_for(tmp_path):
    with pytest.raises(ValueError, match="no dataset 'nothing' is registered"):
        DetectionReliabilityEvaluator("nothing")
    document = valid_document()
    dataset = register(write_dataset(tmp_path, document))
    del MetadataCatalog.get(dataset).evaluator_type
    MetadataCatalog.get(dataset).evaluator_type = "lvis"
    with pytest.raises(ValueError, match="'mine' has the evaluator_type 'lvis'; expected 'coco'"):
        DetectionReliabilityEvaluator(dataset)
    del document["annotations"]
    dataset = register(write_dataset(tmp_path, document, "plain"), "plain")
    with pytest.raises(ValueError, match="dataset 'plain' has no annotations"):
        DetectionReliabilityEvaluator(dataset)


def test_the_truth_of_a_dataset_without_json(dataset):
    """The same boxes and classes. Converted, the categories have the ids of the classes."""
    dicts = DatasetCatalog.get(dataset)
    DatasetCatalog.register("loose", lambda: dicts)
    MetadataCatalog.get("loose").thing_classes = NAMES
    ours, theirs = coco_truth("loose"), coco_truth(dataset)
    assert ours.class_names == theirs.class_names == NAMES
    assert (ours.classes, theirs.classes) == ({0: 0, 1: 1, 2: 2}, {1: 0, 18: 1, 90: 2})
    assert ours.annotations.keys() == theirs.annotations.keys() == {7, 3, 9}
    for key in (7, 3, 9):
        found, expected = (
            sorted((t.classes[x["category_id"]], x["bbox"], x["iscrowd"]) for x in of_image)
            for t, of_image in ((t, t.annotations[key]) for t in (ours, theirs))
        )
        assert found == expected


def test_observing_adds_distributions_and_changes_nothing_else(dataset):
    model = make_spread_gfl(test_score_thresh=0.01)
    inputs = [{"image": torch.randint(0, 256, (3, 64, 96)), "height": 48, "width": 64}]
    evaluator = DetectionReliabilityEvaluator(dataset)
    (before,) = model(inputs)
    with evaluator.observing(model):
        (inside,) = model(inputs)
    (after,) = model(inputs)
    fields = inside["instances"].get_fields()
    assert len(before["instances"]) > 2
    assert fields.pop("pred_box_distributions").shape[1:] == (4, 17)
    assert fields.pop("bin_edges").shape[1:] == (4, 17)
    for plain in (before["instances"], after["instances"]):
        assert plain.get_fields().keys() == fields.keys()
        assert torch.equal(plain.pred_boxes.tensor, fields["pred_boxes"].tensor)
        assert torch.equal(plain.scores, fields["scores"])


@pytest.mark.parametrize("representation", [DiracDistance(), GaussianDistance()])
def test_a_model_without_distributions_is_observed_as_it_is(dataset, representation):
    head = make_head(quality_predictor=torch.nn.Identity(), box_representation=representation)
    model = torch.nn.Module()
    model.head, model.postprocess = head, make_spread_gfl().postprocess
    with DetectionReliabilityEvaluator(dataset).observing(model):
        assert not model.postprocess.distributions
    with DetectionReliabilityEvaluator(dataset).observing(torch.nn.Linear(1, 1)):
        pass


def _worker(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    dataset = register((f"{folder}/train.json", f"{folder}/images"))
    found = evaluated(DetectionReliabilityEvaluator(dataset), FOUND, ids=[(9, 7), (3,)][rank])
    with open(f"{folder}/found{rank}.json", "w") as file:
        json.dump(found, file)
    leave_process_group()


def test_two_processes_find_what_one_does(dataset, tmp_path):
    assert os.path.exists(tmp_path / "train.json")
    mp.spawn(_worker, args=(str(tmp_path),), nprocs=2)
    one = evaluated(DetectionReliabilityEvaluator(dataset), FOUND)["reliability"]
    found = [json.loads((tmp_path / f"found{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0]["reliability"] == pytest.approx(one, nan_ok=True, abs=0)
    assert found[1] == {}
