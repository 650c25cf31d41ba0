"""CornerNet: equality with mmdetection 3.3 in float64 (its answers are in tests/fixtures)."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from gfocal import model_zoo
from gfocal.weights import convert_mmdet_state_dict
from gfocal.weights.convert import to_mmdet_state_dict
from gfocal.weights.tables import CORNERNET
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
    model = instantiate(cfg).double()
    weights = convert_mmdet_state_dict(mmdet.state_dict(fixture))
    result = model.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)
    mmdet.freeze_batch_norm(model)
    return fixture, model, mmdet.inputs(fixture)


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
    model.zero_grad()
    losses = model(inputs)
    assert losses.keys() == {f"loss_{name}" for name in LOSSES}
    for ours, theirs in LOSSES.items():
        expected = float(fixture[f"{theirs}_loss"])
        assert losses[f"loss_{ours}"].item() == pytest.approx(expected, rel=1e-6)

    sum(losses.values()).backward()
    parameters = dict(model.named_parameters())
    theirs = [x.removeprefix("grad_norm:") for x in fixture if x.startswith("grad_norm:")]
    assert len(theirs) >= 100
    ours = convert_mmdet_state_dict(dict.fromkeys(theirs, torch.zeros(1, 1)), table=CORNERNET)
    for name, their_name in zip(ours, theirs, strict=True):
        norm = parameters[name].grad.norm().item()
        expected = float(fixture[f"grad_norm:{their_name}"])
        assert norm == pytest.approx(expected, rel=1e-5), their_name


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
            assert values.sum().item() == pytest.approx(total, rel=1e-6)
            assert values.abs().sum().item() == pytest.approx(absolute, rel=1e-6)


def test_detections(case):
    fixture, model, inputs = case
    model.eval()
    for i, image in enumerate(inputs):
        with torch.no_grad():
            found = model([image])[0]["instances"]
        scores, boxes = found.scores.numpy(), found.pred_boxes.tensor.numpy()
        assert len(found) == len(fixture[f"det_scores_{i}"])
        assert (found.pred_classes.numpy() == fixture[f"det_classes_{i}"]).all()
        np.testing.assert_allclose(scores, fixture[f"det_scores_{i}"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(boxes, fixture[f"det_boxes_{i}"], rtol=0, atol=1e-4)
