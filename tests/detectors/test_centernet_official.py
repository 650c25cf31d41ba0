"""Equality with mmdetection's CenterNet, in float64 (its answers are in tests/fixtures)."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from gfocal import model_zoo
from gfocal.weights import convert_mmdet_state_dict
from tests.helpers import mmdet, official


@pytest.fixture(scope="module")
def case():
    fixture = official.load("centernet")
    cfg = model_zoo.get_config("COCO-Detection/centernet_R_18.py").model
    cfg.num_classes = int(fixture["num_classes"])
    model = instantiate(cfg).double()
    result = model.load_state_dict(
        convert_mmdet_state_dict(mmdet.state_dict(fixture)), strict=False
    )
    assert not result.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in result.missing_keys)
    mmdet.freeze_batch_norm(model)
    return fixture, model, mmdet.inputs(fixture)


def test_losses_and_gradients(case):
    fixture, model, inputs = case
    model.train()
    model.zero_grad()
    losses = model(inputs)
    assert losses.keys() == {"loss_center_heatmap", "loss_wh", "loss_offset"}
    for name, value in losses.items():
        assert value.item() == pytest.approx(float(fixture[name]), rel=1e-6), name

    sum(losses.values()).backward()
    parameters = dict(model.named_parameters())
    named = [key for key in fixture if key.startswith("grad_norm:")]
    assert len(named) == 19
    for key in named:
        theirs = key.removeprefix("grad_norm:")
        context = {theirs: torch.zeros(1, 1), "neck.deconv_layers.0.conv.weight": torch.zeros(1)}
        ours = convert_mmdet_state_dict(context)
        norm = parameters[next(iter(ours))].grad.norm().item()
        assert norm == pytest.approx(float(fixture[key]), rel=1e-5), theirs


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
        assert x.sum().item() == pytest.approx(total, rel=1e-6)
        assert x.abs().sum().item() == pytest.approx(absolute, rel=1e-6)


def test_detections(case):
    fixture, model, inputs = case
    model.eval()
    for i, image in enumerate(inputs):
        with torch.no_grad():
            found = model([image])[0]["instances"]
        assert len(found) == len(fixture[f"det_scores_{i}"]) == 100
        assert (found.pred_classes.numpy() == fixture[f"det_classes_{i}"]).all()
        scores, boxes = found.scores.numpy(), found.pred_boxes.tensor.numpy()
        np.testing.assert_allclose(scores, fixture[f"det_scores_{i}"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(boxes, fixture[f"det_boxes_{i}"], rtol=0, atol=1e-3)
        assert (boxes[:, 2] < boxes[:, 0]).any()  # without area, and still there
