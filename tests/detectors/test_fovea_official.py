"""FoveaBox: equality with mmdetection 3.3 in float64 (its answers are in tests/fixtures)."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

from gfocal import model_zoo
from gfocal.weights import convert_mmdet_state_dict
from gfocal.weights.tables import FOVEABOX
from tests.helpers import mmdet, official


@pytest.fixture(scope="module")
def case():
    fixture = official.load("fovea")
    cfg = model_zoo.get_config("COCO-Detection/fovea_R_50_FPN_1x.py").model
    cfg.num_classes = int(fixture["num_classes"])
    bottom_up = cfg.backbone.bottom_up
    bottom_up.freeze_at = 0  # so that every parameter has a gradient to compare
    bottom_up.stages.depth = 18
    bottom_up.stem.norm = bottom_up.stages.norm = "BN"
    # mmdetection takes the top 1000 locations of a level, which no level here has; we pairs.
    cfg.test_topk_candidates = 24 * 32 * 5
    model = instantiate(cfg).double()
    result = model.load_state_dict(convert_mmdet_state_dict(mmdet.state_dict(fixture)), False)
    assert not result.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)
    mmdet.freeze_batch_norm(model)
    return fixture, model, mmdet.inputs(fixture)


def test_losses_and_gradients(case):
    fixture, model, inputs = case
    model.train()
    model.zero_grad()
    with EventStorage(0):
        losses = model(inputs)
    assert losses.keys() == {"loss_cls", "loss_box_reg"}
    assert losses["loss_cls"].item() == pytest.approx(float(fixture["loss_cls"]), rel=1e-6)
    assert losses["loss_box_reg"].item() == pytest.approx(float(fixture["loss_bbox"]), rel=1e-6)

    sum(losses.values()).backward()
    parameters = dict(model.named_parameters())
    named = [key for key in fixture if key.startswith("grad_norm:")]
    assert len(named) >= 20
    for key in named:
        theirs = key.removeprefix("grad_norm:")
        (ours,) = convert_mmdet_state_dict({theirs: torch.zeros(1, 1)}, table=FOVEABOX)
        norm = parameters[ours].grad.norm().item()
        assert norm == pytest.approx(float(fixture[key]), rel=1e-5), theirs


def test_raw_predictions(case):
    fixture, model, inputs = case
    model.eval()
    with torch.no_grad():
        _, anchors, predictions = model.forward_dense(inputs)
    for i, values in enumerate((predictions.cls_logits, predictions.box_logits.flatten(2))):
        for j, level in enumerate(values.split(anchors.level_sizes, dim=1)):
            total, absolute, images, channels, *shape = fixture[f"raw_{i}_{j}"]
            assert (images, channels) == (len(level), level.shape[-1])
            assert tuple(shape) == anchors.level_shapes[j]
            assert level.sum().item() == pytest.approx(total, rel=1e-6)
            assert level.abs().sum().item() == pytest.approx(absolute, rel=1e-6)


def test_detections(case):
    fixture, model, inputs = case
    model.eval()
    for i, image in enumerate(inputs):
        with torch.no_grad():
            found = model([image])[0]["instances"]
        boxes = found.pred_boxes.tensor.numpy()
        assert len(found) == len(fixture[f"det_scores_{i}"])
        assert (found.pred_classes.numpy() == fixture[f"det_classes_{i}"]).all()
        np.testing.assert_allclose(
            found.scores.numpy(), fixture[f"det_scores_{i}"], rtol=0, atol=1e-6
        )
        # mmdetection's points are float32
        np.testing.assert_allclose(boxes, fixture[f"det_boxes_{i}"], rtol=0, atol=1e-4)
        height, width = image["image"].shape[1:]
        assert boxes[:, 2].max() == width - 1 and boxes[:, 3].max() <= height - 1
