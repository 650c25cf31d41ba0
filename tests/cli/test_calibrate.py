"""gfocal calibrate, on annotations made from a detector's own detections, so that it is known how
good these are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gfocal.cli import calibrate
from gfocal.engine import Predictor
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.score_maps import QualityFocal
from gfocal.modeling.terms import GIoULoss, ScoreLoss
from gfocal.weights.description import read_description
from tests.helpers.tiny import make_gfl

ROOT = Path(__file__).parents[2]
CONFIG = """
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader
from gfocal.config import train_node
from gfocal.data import DetectionMapper, detection_dataset_dicts
from gfocal.data.coco_files import register_coco_jsons
from gfocal.data.coco_evaluation import dataset_evaluator
from tests.helpers.spread import make_spread_gfl

model = L(make_spread_gfl)(test_score_thresh=0.05, max_detections_per_image=20)
dataloader = dict(
    test=L(build_detection_test_loader)(
        dataset=L(detection_dataset_dicts)(
            names=L(register_coco_jsons)(
                name="calibrated_val", json_file="val.json", image_root="photos",
                num_classes=3,
            ),
            filter_empty=False,
        ),
        mapper=L(DetectionMapper)(
            is_train=False, image_format="BGR",
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=64, max_size=128)],
        ),
        num_workers=0,
    ),
    evaluator=L(dataset_evaluator)(dataset_name="${..test.dataset.names}"),
)
train = train_node(device="cpu")
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch, loggers_restored) -> Path:
    """config.py, weights.pth, photos/ and val.json. Every second detection is an object, whose
    sides are off by Laplace errors of 0.05 standard deviations."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.py").write_text(CONFIG)
    torch.manual_seed(0)
    from tests.helpers.spread import make_spread_gfl

    torch.save({"model": make_spread_gfl().state_dict()}, "weights.pth")
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    images = []
    for index in range(12):
        Image.fromarray(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(
            f"photos/{index}.png"
        )
        images.append({"id": index, "file_name": f"{index}.png", "width": 96, "height": 64})
    dataset = {
        "images": images,
        "annotations": [],
        "categories": [{"id": i, "name": str(i)} for i in (1, 2, 3)],
    }
    (tmp_path / "val.json").write_text(json.dumps(dataset))
    predictor = Predictor("config.py", "weights.pth")
    for image in images:
        found = predictor(f"photos/{image['file_name']}")["instances"]
        rows = zip(found.pred_boxes.tensor.numpy(), found.pred_box_stds.numpy(), found.pred_classes)
        for number, (box, stds, c) in enumerate(rows):
            if number % 2:
                continue
            x0, y0, x1, y1 = box + rng.laplace(scale=0.05 * stds)
            # Many boxes end where the image ends: there sides are off inwards.
            x0, y0, x1, y1 = abs(x0), abs(y0), 96 - abs(96 - x1), 64 - abs(64 - y1)
            if x1 - x0 > 2 and y1 - y0 > 2:
                dataset["annotations"].append(
                    {
                        "id": len(dataset["annotations"]) + 1,
                        "image_id": image["id"],
                        "category_id": int(c) + 1,
                        "bbox": [float(v) for v in (x0, y0, x1 - x0, y1 - y0)],
                        "area": float((x1 - x0) * (y1 - y0)),
                        "iscrowd": 0,
                    }
                )
    (tmp_path / "val.json").write_text(json.dumps(dataset))
    return tmp_path


WORDS = ["--config-file", "config.py", "--weights", "weights.pth", "--output", "out.pth"]


def test_the_output_is_the_weights_with_a_calibration(files, capsys):
    assert calibrate.main(WORDS) == 0
    printed = capsys.readouterr().out
    assert "6 images fitted" in printed and "6 other images" in printed
    assert "scores in closed form" in printed and "coverage of 90 %, stds times" in printed
    before, after = (torch.load(x, weights_only=True) for x in ("weights.pth", "out.pth"))
    assert all(torch.equal(before["model"][key], x) for key, x in after["model"].items())
    data = read_description("out.pth").calibration
    # The standard deviation of Laplace errors of scale 0.05 is 0.071.
    assert data["std_scale"] == pytest.approx(0.071, rel=0.2)
    assert data["fitted_on"]["images"] == 6 and data["fitted_on"]["judged_on"] == 6
    table = data["fitted_on"]["table"]
    laece = {key: x[1] for key, x in table.items() if key.startswith("LaECE")}
    assert len(laece) == 3 and data["method"] in min(laece, key=laece.get)
    plain = Predictor("config.py", "out.pth")("photos/0.png")["instances"]
    found = Predictor("config.py", "out.pth", calibrated=True)("photos/0.png")["instances"]
    assert torch.equal(plain.pred_boxes.tensor, found.pred_boxes.tensor)
    torch.testing.assert_close(found.pred_box_stds, data["std_scale"] * plain.pred_box_stds)
    expected = np.interp(plain.scores.numpy(), data["scores"], data["values"])
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_and_a_file_is_not_replaced(files):
    assert calibrate.main(WORDS) == 0
    first = read_description("out.pth").calibration
    with pytest.raises(SystemExit, match="--output is 'out.pth', which is there"):
        calibrate.main(WORDS)
    assert calibrate.main([*WORDS, "--overwrite"]) == 0
    assert read_description("out.pth").calibration == first
    assert calibrate.main([*WORDS, "--overwrite", "--seed", "3"]) == 0
    assert read_description("out.pth").calibration != first


def test_nothing_to_calibrate_on(files):
    dataset = json.loads((files / "val.json").read_text())
    (files / "val.json").write_text(json.dumps({**dataset, "annotations": []}))
    with pytest.raises(SystemExit, match="no true positive to fit scores on"):
        calibrate.main(WORDS)
    dataset["images"] = dataset["images"][:1]
    dataset["annotations"] = [x for x in dataset["annotations"] if x["image_id"] == 0]
    (files / "val.json").write_text(json.dumps(dataset))
    with pytest.raises(SystemExit, match="1 images to calibrate on; expected at least 2"):
        calibrate.main(WORDS)
    with pytest.raises(SystemExit, match=r"the config has the test datasets \[\]; expected one"):
        calibrate.main([*WORDS, "dataloader.test.dataset.names=[]"])


def test_arguments(capsys):
    with pytest.raises(SystemExit):
        calibrate.parse_args(["--weights", "w.pth", "--output", "w.onnx"])
    assert "must end in .pth" in capsys.readouterr().err


def test_make_gfl_is_not_trained_by_another_loss():
    """beta comes from the loss; without QFL there is no closed form."""
    assert calibrate._beta_of(make_gfl()) == 2.0
    for maps, beta in (("qfl", 2.0), (QualityFocal(1.0), 1.0), ("vfl", None)):
        criterion = GFLCriterion(cls_loss=ScoreLoss(maps=maps), box_loss=GIoULoss())
        assert calibrate._beta_of(make_gfl(criterion=criterion)) == beta
    model = make_gfl()
    model.criterion.cls_loss = torch.nn.Identity()
    assert calibrate._beta_of(model) is None
