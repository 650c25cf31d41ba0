"""Equality with mmdetection's CenterNet, in float64 (its answers are in tests/fixtures)."""

import pytest
import torch

from gfocal import model_zoo
from tests.helpers import mmdet, official


@pytest.fixture(scope="module")
def case():
    fixture = official.load("centernet")
    cfg = model_zoo.get_config("COCO-Detection/centernet_R_18.py").model
    cfg.num_classes = int(fixture["num_classes"])
    return fixture, mmdet.detector(fixture, cfg), mmdet.inputs(fixture)


def test_losses_and_gradients(case):
    fixture, model, inputs = case
    model.train()
    losses = model(inputs)
    assert losses.keys() == {"loss_center_heatmap", "loss_wh", "loss_offset"}
    for name, value in losses.items():
        assert value.item() == pytest.approx(float(fixture[name]), rel=1e-6), name
    mmdet.check_gradients(fixture, model, losses, at_least=19)


def test_raw_outputs(case):
    fixture, model, inputs = case
    model.eval()
    with torch.no_grad():
        outputs = model.raw(model.preprocess_image(inputs).tensor)
    assert list(outputs) == ["heatmap", "wh", "offset"]
    outputs["heatmap"] = outputs["heatmap"].sigmoid()
    for i, x in enumerate(outputs.values()):
        total, absolute, *shape = fixture[f"raw_{i}_0"]
        assert list(x.shape) == shape
        mmdet.check_sums(x, total, absolute)


def test_detections(case):
    fixture, model, inputs = case
    model.eval()
    for i, image in enumerate(inputs):
        with torch.no_grad():
            found = model([image])[0]["instances"]
        assert len(found) == 100
        mmdet.check_detections(fixture, i, found)
        boxes = found.pred_boxes.tensor
        assert (boxes[:, 2] < boxes[:, 0]).any()  # without area, and still there
