"""CornerNet: equality with mmdetection 3.3 in float64 (its answers are in tests/fixtures)."""

import pytest
import torch

from gfocal import model_zoo
from gfocal.weights import convert_mmdet_state_dict
from gfocal.weights.convert import to_mmdet_state_dict
from tests.helpers import mmdet, official

LOSSES = {"heatmap": "det", "offset": "off", "pull": "pull", "push": "push"}
# The outputs in mmdetection's order.
OUTPUTS = [
    f"{corner}_{kind}"
    for kind in ("heatmap", "embedding", "offset")
    for corner in ("top_left", "bottom_right")
]


@pytest.fixture(scope="module")
def case():
    fixture = official.load("cornernet")
    cfg = model_zoo.get_config("COCO-Detection/cornernet_HG_104.py").model
    cfg.num_classes = int(fixture["num_classes"])
    cfg.backbone.channels = [32, 32, 48, 48, 48, 64]
    cfg.backbone.out_channels = 32
    return fixture, mmdet.detector(fixture, cfg), mmdet.inputs(fixture)


def test_the_names_there_and_back(case):
    fixture, _, _ = case
    theirs = mmdet.state_dict(fixture)
    assert len(theirs) == 1128
    back = to_mmdet_state_dict(convert_mmdet_state_dict(theirs))
    assert back.keys() == {x for x in theirs if not x.endswith("num_batches_tracked")}
    assert all(torch.equal(back[name], theirs[name]) for name in back)


def test_losses_and_gradients(case):
    fixture, model, inputs = case
    model.train()
    losses = model(inputs)
    assert losses.keys() == {f"loss_{name}" for name in LOSSES}
    for ours, theirs in LOSSES.items():
        expected = float(fixture[f"{theirs}_loss"])
        assert losses[f"loss_{ours}"].item() == pytest.approx(expected, rel=1e-6)
    mmdet.check_gradients(fixture, model, losses, at_least=100)


def test_raw_predictions(case):
    fixture, model, inputs = case
    model.eval()
    with torch.no_grad():
        raw = model.raw(model.preprocess_image(inputs).tensor)
    assert len(raw) == 12
    for i, name in enumerate(OUTPUTS):
        for j in range(2):
            values = raw[f"{name}_stack{j + 1}"]
            total, absolute, *shape = fixture[f"raw_{i}_{j}"]
            assert list(values.shape) == shape
            mmdet.check_sums(values, total, absolute)


def test_detections(case):
    fixture, model, inputs = case
    model.eval()
    for i, image in enumerate(inputs):
        with torch.no_grad():
            found = model([image])[0]["instances"]
        mmdet.check_detections(fixture, i, found, pixels=1e-4)
