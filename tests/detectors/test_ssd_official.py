"""Equality with mmdetection 3.3, in float64 (its answers are in tests/fixtures/ssd512.npz)."""

import zlib

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from gfocal.config import model_zoo
from gfocal.weights import convert_mmdet_state_dict
from gfocal.weights.tables import SSD
from tests.helpers import mmdet, official


@pytest.fixture(scope="module")
def fixture():
    """The two images are noise, drawn one after the other from one seed."""
    fixture = official.load("ssd512")
    random = np.random.RandomState(int(fixture["noise_seed"]))
    for i in range(2):
        image = random.randint(0, 256, size=(*fixture["input_shape"], 3)).astype(np.uint8)
        assert zlib.crc32(image.tobytes()) == fixture[f"noise_crc_{i}"]
        fixture[f"image_{i}"] = image
    return fixture


@pytest.fixture(scope="module")
def model(fixture):
    model = model_zoo.get_config("COCO-Detection/ssd512_VGG_16.py").model
    model.num_classes = int(fixture["num_classes"])
    model = instantiate(model).double()
    model.load_state_dict(convert_mmdet_state_dict(mmdet.state_dict(fixture)))
    return model


@pytest.fixture(scope="module")
def inputs(fixture):
    return mmdet.inputs(fixture)


def test_losses_and_gradients(fixture, model, inputs):
    model.train()
    model.zero_grad()
    losses = model(inputs)
    assert losses["loss_cls"].item() == pytest.approx(float(fixture["loss_cls"]), rel=1e-6)
    assert losses["loss_box_reg"].item() == pytest.approx(float(fixture["loss_bbox"]), rel=1e-6)

    sum(losses.values()).backward()
    parameters = dict(model.named_parameters())
    named = [key for key in fixture if key.startswith("grad_norm:")]
    assert len(named) == 34
    for key in named:
        theirs = key.removeprefix("grad_norm:")
        # renamed one by one, so that each norm meets the gradient of its own parameter
        (ours,) = convert_mmdet_state_dict({theirs: torch.zeros(1)}, table=SSD)
        norm = parameters[ours].grad.norm().item()
        assert norm == pytest.approx(float(fixture[key]), rel=1e-5, abs=1e-12), theirs


@pytest.fixture(scope="module")
def outputs(model, inputs):
    """Of both images together: they have the same size, so there is no padding."""
    model.eval()
    with torch.no_grad():
        return model.predict(model.preprocess_image(inputs).tensor)


def test_raw_predictions(fixture, outputs):
    priors, predictions = outputs
    for output, values in enumerate(predictions):
        for level, found in enumerate(values.split(priors.level_sizes, dim=1)):
            total, magnitude, images, channels, height, width = fixture[f"raw_{output}_{level}"]
            assert found.numel() == images * channels * height * width
            assert found.sum().item() == pytest.approx(total, rel=1e-6)
            assert found.abs().sum().item() == pytest.approx(magnitude, rel=1e-6)


def test_detections(fixture, model, outputs):
    for i, found in enumerate(model.inference(*outputs, [(512, 512)] * 2)):
        assert len(found) == len(fixture[f"det_scores_{i}"]) == 200
        assert (found.pred_classes.numpy() == fixture[f"det_classes_{i}"]).all()
        scores, boxes = found.scores.numpy(), found.pred_boxes.tensor.numpy()
        np.testing.assert_allclose(scores, fixture[f"det_scores_{i}"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(boxes, fixture[f"det_boxes_{i}"], rtol=0, atol=1e-3)
