"""QFL and DFL in Detectron2's FCOS: beside FCOS's own parts, and beside the definitions."""

import pytest
import torch
from detectron2.structures import Boxes, pairwise_iou
from detectron2.utils.events import EventStorage

from gfocal import NMSPostProcess
from gfocal.modeling.losses import (
    distribution_focal_loss,
    generalized_iou_loss,
    quality_focal_loss,
)
from gfocal.modeling.structures import DenseAnchors, DensePredictions
from tests.helpers.tiny import make_input
from tests.helpers.tiny_fcos import make_gfl_fcos, needs_fcos

pytestmark = [needs_fcos, pytest.mark.usefixtures("one_thread")]
BOXES = [[3.0, 2.0, 63.0, 58.0], [60.0, 5.0, 90.0, 60.0], [20.0, 20.0, 33.0, 35.0]]


def make_batch():
    return [make_input(64, 96, BOXES, [0, 2, 1]), make_input(80, 48)]


def look_at(model, batch):
    """What the detector sees of a batch: anchors (R, 4), logits (N, R, K), sides (N, R, 4, C),
    FCOS's labels (N, R) and boxes (N, R, 4)."""
    images = model.preprocess_image(batch)
    features = list(model.backbone(images.tensor).values())
    logits, sides = model.per_level(model.head(features))
    anchors = model.anchor_generator(features)
    labels, boxes = model.label_anchors(anchors, [x["instances"] for x in batch])
    together = torch.cat(logits, dim=1), torch.cat(sides, dim=1)
    return Boxes.cat(anchors).tensor, *together, torch.stack(labels), torch.stack(boxes)


def test_a_step_and_an_inference():
    torch.manual_seed(0)
    model = make_gfl_fcos()
    with EventStorage():
        losses = model(make_batch())
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_dfl"}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name
    assert not any("ctrness" in name for name in model.state_dict())
    with torch.no_grad():
        first, second = (x["instances"] for x in model.eval()(make_batch()))
    assert len(first) > 0 and first.image_size == (64, 96) and second.image_size == (80, 48)


@pytest.mark.parametrize("reg_max", [7, 16])
def test_the_losses_by_definition(reg_max):
    """Labels, boxes and decoding are FCOS's, the loss is written once more: a dense QFL over the
    number of positives (an image without any counts as one); GIoU and DFL weighted by the score."""
    torch.manual_seed(0)
    model, batch = make_gfl_fcos(reg_max=reg_max), make_batch()
    anchors, logits, sides, labels, gt_boxes = look_at(model, batch)
    targets = torch.zeros_like(logits)
    giou = dfl = weight = 0.0
    positives = (labels < 3).nonzero().tolist()
    assert len(positives) > 10 and {i for i, _ in positives} == {0}
    for i, r in positives:
        probabilities = sides[i, r].softmax(dim=-1)
        distances = probabilities @ torch.arange(reg_max + 1.0)
        box = model.box2box_transform.apply_deltas(distances[None], anchors[r : r + 1])
        truth = gt_boxes[i, r : r + 1]
        targets[i, r, labels[i, r]] = pairwise_iou(Boxes(box.detach()), Boxes(truth)).item()
        score = logits[i, r].sigmoid().max().item()
        bins = model.box2box_transform.get_deltas(anchors[r : r + 1], truth)[0]
        bins = bins.clamp(0, reg_max - 0.1)
        giou += score * generalized_iou_loss(box, truth).sum()
        dfl += score * distribution_focal_loss(sides[i, r], bins, "mean")
        weight += score
    expected = {
        "loss_cls": quality_focal_loss(logits, targets, reduction="sum") / (len(positives) + 1),
        "loss_box_reg": 2 * giou / weight,
        "loss_dfl": dfl / weight / 4,
    }
    with EventStorage():
        losses = model(batch)
    parameters = list(model.head.parameters())
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-6)
        for a, b in zip(
            *(
                torch.autograd.grad(x, parameters, retain_graph=True, allow_unused=True)
                for x in (loss, expected[name])
            )
        ):
            assert (a is None or not a.any()) == (b is None or not b.any())
            if a is not None and b is not None:
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_inference_is_that_of_gfl():
    """FCOS's thresholds, top-k and decoding, and gfocal's, give the same boxes of the same logits.
    (Without NMS: FCOS clips boxes to the image after it, gfocal before.)"""
    torch.manual_seed(0)
    numbers = {"score_thresh": 0.1, "topk_candidates": 40, "nms_thresh": 1.0}
    fcos = {f"test_{name}": value for name, value in numbers.items()}
    model, batch = make_gfl_fcos(max_detections_per_image=1000, **fcos).eval(), make_batch()
    with torch.no_grad():
        found = [x["instances"] for x in model(batch)]
        anchors, logits, sides, *_ = look_at(model, batch)
        strides = torch.cat([torch.full((120,), 8.0), torch.full((30,), 16.0)])
        expected = NMSPostProcess(max_detections=1000, **numbers)(
            DenseAnchors(anchors, strides, [(10, 12), (5, 6)]),  # of 80 x 96 px
            DensePredictions(logits, sides, None, model.head.box_representation),
            [(64, 96), (80, 48)],
        )
    for a, b in zip(found, expected, strict=True):
        b = b[b.pred_boxes.nonempty()]
        assert len(a) > 20
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
        assert torch.equal(a.pred_classes, b.pred_classes)


def test_it_learns():
    torch.manual_seed(0)
    model, batch = make_gfl_fcos(), make_batch()
    for (x0, y0, x1, y1), channel in zip(BOXES, range(3)):  # each class has a colour
        batch[0]["image"][:] = 20
        batch[0]["image"][channel, int(y0) : int(y1), int(x0) : int(x1)] = 250
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    totals = []
    for _ in range(20):
        with EventStorage():
            loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert sum(totals[-3:]) < 0.8 * sum(totals[:3]), totals
