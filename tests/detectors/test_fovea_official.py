"""FoveaBox: equality with mmdetection 3.3 in float64 (its answers are in tests/fixtures)."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from gfocal import model_zoo
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
    return fixture, mmdet.detector(fixture, cfg), mmdet.inputs(fixture)


def test_losses_and_gradients(case):
    fixture, model, inputs = case
    model.train()
    with EventStorage(0):
        losses = model(inputs)
    assert losses.keys() == {"loss_cls", "loss_box_reg"}
    assert losses["loss_cls"].item() == pytest.approx(float(fixture["loss_cls"]), rel=1e-6)
    assert losses["loss_box_reg"].item() == pytest.approx(float(fixture["loss_bbox"]), rel=1e-6)
    mmdet.check_gradients(fixture, model, losses, at_least=20)


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
            mmdet.check_sums(level, total, absolute)


def test_detections(case):
    fixture, model, inputs = case
    model.eval()
    for i, image in enumerate(inputs):
        with torch.no_grad():
            found = model([image])[0]["instances"]
        mmdet.check_detections(fixture, i, found, pixels=1e-4)  # its points are float32
        boxes = found.pred_boxes.tensor
        height, width = image["image"].shape[1:]
        assert boxes[:, 2].max() == width - 1 and boxes[:, 3].max() <= height - 1
