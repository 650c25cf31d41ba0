"""Detectors of mmdetection 3.3 in tests/fixtures: their weights and inputs, in float64."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances

from gfocal.weights import convert_mmdet_state_dict
from tests.helpers import official

_COUNTER = "num_batches_tracked"


def state_dict(fixture):
    """mmdetection's seeded weights of a fixture."""
    ret = official.state_dict(fixture)
    low = {str(name) for name in fixture["low_bias"]}
    for name, value in ret.items():
        if value.dim() >= 2:
            value *= float(fixture["weight_scale"])
        if name in low:
            value -= 2.5 if "_heat" in name else 4.5
    return ret


def inputs(fixture):
    """The images of a fixture with their boxes."""
    ret = []
    for i in range(sum(name.startswith("image_") for name in fixture)):
        image = torch.from_numpy(fixture[f"image_{i}"]).permute(2, 0, 1).double()
        instances = Instances(tuple(image.shape[1:]))
        instances.gt_boxes = Boxes(torch.zeros(0, 4))
        instances.gt_boxes.tensor = torch.from_numpy(fixture[f"gt_boxes_{i}"])  # Boxes() is float32
        instances.gt_classes = torch.from_numpy(fixture[f"gt_classes_{i}"])
        ret.append({"image": image, "instances": instances})
    return ret


def detector(fixture, model_cfg):
    """The model of a config in float64, with a fixture's weights."""
    model = instantiate(model_cfg).double()
    weights = convert_mmdet_state_dict(state_dict(fixture))
    result = model.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys
    assert all(name.endswith(_COUNTER) for name in result.missing_keys)
    _freeze_batch_norm(model)
    return model


def check_gradients(fixture, model, losses, *, at_least):
    """The norm of the gradient of each parameter, to 1e-5."""
    model.zero_grad()
    sum(losses.values()).backward()
    weights = state_dict(fixture)
    ours = convert_mmdet_state_dict(weights)
    theirs = [name for name in weights if not name.endswith(_COUNTER)]
    parameters, count = dict(model.named_parameters()), 0
    for name, their_name in zip(ours, theirs, strict=True):
        if (expected := fixture.get(f"grad_norm:{their_name}")) is not None:
            norm = parameters[name].grad.norm().item()
            assert norm == pytest.approx(float(expected), rel=1e-5, abs=1e-12), their_name
            count += 1
    assert count == sum(key.startswith("grad_norm:") for key in fixture) >= at_least


def check_sums(values, total, absolute):
    """The sums of an output and of its absolute values, to 1e-6."""
    assert values.sum().item() == pytest.approx(total, rel=1e-6)
    assert values.abs().sum().item() == pytest.approx(absolute, rel=1e-6)


def check_detections(fixture, index, found, *, pixels=1e-3):
    """Those of an image: the same classes, scores to 1e-6, boxes to so many pixels."""
    expected = {key: fixture[f"det_{key}_{index}"] for key in ("classes", "scores", "boxes")}
    assert found.pred_classes.tolist() == expected["classes"].tolist()
    scores, boxes = found.scores.numpy(), found.pred_boxes.tensor.numpy()
    np.testing.assert_allclose(scores, expected["scores"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(boxes, expected["boxes"], rtol=0, atol=pixels)


def _freeze_batch_norm(model):
    """Statistics stay as they are loaded (mmdetection's norm_eval)."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True: None
