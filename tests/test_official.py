"""Equality with the official GFocalV2 code, in float64 (its answers are in tests/fixtures)."""

import numpy as np
import pytest
import torch

from gfocal.weights import convert_mmdet_state_dict
from tests.helpers import official

KINDS = ["v1_r18", "v1_r50", "v2_r18", "v2_r50"]


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    fixture = official.load(f"detector_{request.param}")
    return fixture, official.detector(fixture), official.detector_inputs()


def test_losses_and_gradients(case):
    fixture, model, inputs = case
    model.train()
    model.zero_grad()
    losses = model(inputs)
    expected = {
        "loss_cls": fixture["loss_cls"],
        "loss_box_reg": fixture["loss_bbox"],
        "loss_dfl": fixture["loss_dfl"],
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(float(value), rel=1e-6), name

    sum(losses.values()).backward()
    parameters = dict(model.named_parameters())
    # renamed one by one, so that each official norm meets the gradient of its own parameter
    named = [key for key in fixture if key.startswith("grad_norm:")]
    assert len(named) >= 5
    for key in named:
        official_name = key.removeprefix("grad_norm:")
        (ours,) = convert_mmdet_state_dict({official_name: torch.zeros(1, 1)})
        norm = parameters[ours].grad.norm().item()
        assert norm == pytest.approx(float(fixture[key]), rel=1e-5, abs=1e-12), official_name


def test_targets(case):
    fixture, model, inputs = case
    model.eval()
    with torch.no_grad():
        images, anchors, predictions = model.forward_dense(inputs)
        truth = model.ground_truth(inputs, images.image_sizes)
        targets = model.label_anchors(anchors, predictions, truth)
    expected = np.where(fixture["label_weights"] > 0, fixture["labels"], -1)
    assert (expected == -1).any()  # the second image is smaller: part of its grid is padding
    assert (targets.labels.numpy() == expected).all()


def test_raw_predictions(case):
    fixture, model, inputs = case
    model.eval()
    with torch.no_grad():
        _, anchors, predictions = model.forward_dense(inputs)
    assert anchors.level_shapes == [tuple(shape) for shape in fixture["level_shapes"]]
    cls = predictions.joint_logits()
    if fixture["kind"] == "v2":
        cls = cls.sigmoid()  # the official v2 head answers probabilities
    for name, values in {"cls": cls, "reg": predictions.box_logits}.items():
        levels = values.flatten(2).split(anchors.level_sizes, dim=1)
        for level, expected, expected_abs in zip(
            levels, fixture[f"{name}_sum"], fixture[f"{name}_abs_sum"]
        ):
            assert level.sum().item() == pytest.approx(expected, rel=1e-5)
            assert level.abs().sum().item() == pytest.approx(expected_abs, rel=1e-6)


def test_detections(case):
    fixture, model, inputs = case
    model.eval()
    for i, image in enumerate(inputs):
        with torch.no_grad():
            instances = model([image])[0]["instances"]
        assert len(instances) == len(fixture[f"det_scores_{i}"])
        assert (instances.pred_classes.numpy() == fixture[f"det_classes_{i}"]).all()
        np.testing.assert_allclose(
            instances.scores.numpy(), fixture[f"det_scores_{i}"], rtol=0, atol=1e-6
        )
        np.testing.assert_allclose(
            instances.pred_boxes.tensor.numpy(), fixture[f"det_boxes_{i}"], rtol=0, atol=1e-4
        )


def test_batched_detections_equal_single(case):
    _, model, inputs = case
    model.eval()
    square = [{**x, "image": x["image"][:, :192, :256]} for x in inputs]  # no padding in the batch
    with torch.no_grad():
        together = model(square)
        alone = [model([x])[0] for x in square]
    for a, b in zip(together, alone):
        assert (a["instances"].pred_classes == b["instances"].pred_classes).all()
        torch.testing.assert_close(a["instances"].scores, b["instances"].scores)
        torch.testing.assert_close(
            a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor
        )
