"""Equality with mmdetection 3.3, in float64 (its answers are in tests/fixtures/ssd512.npz)."""

import zlib

import numpy as np
import pytest
import torch

from gfocal.config import model_zoo
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
    cfg = model_zoo.get_config("COCO-Detection/ssd512_VGG_16.py").model
    cfg.num_classes = int(fixture["num_classes"])
    return mmdet.detector(fixture, cfg)


@pytest.fixture(scope="module")
def inputs(fixture):
    return mmdet.inputs(fixture)


@pytest.mark.slow
def test_losses_and_gradients(fixture, model, inputs):
    model.train()
    losses = model(inputs)
    assert losses["loss_cls"].item() == pytest.approx(float(fixture["loss_cls"]), rel=1e-6)
    assert losses["loss_box_reg"].item() == pytest.approx(float(fixture["loss_bbox"]), rel=1e-6)
    mmdet.check_gradients(fixture, model, losses, at_least=34)


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
            mmdet.check_sums(found, total, magnitude)


def test_detections(fixture, model, outputs):
    for i, found in enumerate(model.inference(*outputs, [(512, 512)] * 2)):
        assert len(found) == 200
        mmdet.check_detections(fixture, i, found)
