"""Masks from the generated shapes to the json of predict, by the commands. And AR of proposals."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from gfocal.cli import predict, train
from gfocal.engine import Predictor
from gfocal.inspect import draw_detections

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
SMALL = [
    "train.max_iter=3",
    "train.device=cpu",
    "dataloader.train.total_batch_size=2",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "dataloader.train.dataset.names.num_images=4",
    "dataloader.test.dataset.names.num_images=3",
    "dataloader.test.dataset.names.image_size=128",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shapes_mask_gfl", "shapes_gfl_mask_rcnn"])
def test_by_the_commands(tmp_path, monkeypatch, name):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    output = tmp_path / "out"
    threshold = "model.test_score_thresh=0.0"
    if "rcnn" in name:
        threshold = "model.roi_heads.box_predictor.test_score_thresh=0.0"
    words = ["--config-file", f"quick_start/{name}.py", f"train.output_dir={output}", threshold]
    assert not train.main([*words, *SMALL])
    metrics = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert {"segm/AP", "bbox/AP"} < set().union(*metrics)
    assert any("loss_mask" in x for x in metrics)

    weights = output / "model_final.pth"
    (photo,) = sorted(tmp_path.glob("gfocal_shapes/val*/images/000001.jpg"))
    results = tmp_path / "results.json"
    words = ["--weights", str(weights), "--input", str(photo), "--output", str(results)]
    assert predict.main([*words, "--workers", "0", "--num-gpus", "0"]) == 0
    predictor = Predictor(weights)
    image = np.asarray(Image.open(photo))
    found = predictor(image[:, :, ::-1])["instances"]
    rows = json.loads(results.read_text())
    assert len(rows) == len(found) > 0
    masks = np.stack([coco.decode(x["segmentation"]) for x in rows])
    np.testing.assert_array_equal(masks, found.pred_masks.numpy())
    tinted = draw_detections(image, found, threshold=0.0)
    found.remove("pred_masks")
    without = draw_detections(image, found, threshold=0.0)
    assert (tinted != without).any() == bool(masks.any())

    if "rcnn" in name:
        monkeypatch.syspath_prepend(str(EXAMPLES))
        recall = sys.modules.get("proposal_recall") or __import__("proposal_recall")
        found = recall.proposal_recall(str(weights))
        assert 0 <= found["AR@100"] <= found["AR@1000"] <= 100
