"""GFL as a user meets it. What holds for every detector is in scenarios/test_every_detector.py."""

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes

from gfocal.detectors.gfl import GFL
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.matchers import ATSSMatcher, FCOSMatcher, ignore_background_inside
from gfocal.modeling.quality import NoQuality, QualityBranch, centerness, localization_iou
from gfocal.modeling.representations import DiracDistance, GaussianDistance, GeneralDistribution
from gfocal.modeling.terms import FocalLoss, GaussianNLLLoss, GIoULoss, QualityBranchLoss
from tests.helpers.synchronisations import Synchronisations
from tests.helpers.tiny import make_gfl, make_head, make_input

BOX = [3.0, 2.0, 63.0, 58.0]  # larger than half an anchor: ATSS leaves smaller ones unmatched


def test_registered():
    assert META_ARCH_REGISTRY.get("GFL") is GFL


def test_names_of_the_losses():
    losses = make_gfl()([make_input(64, 96, [BOX])])
    assert losses.keys() == {"loss_cls", "loss_box_reg", "loss_dfl"}


def test_padding_does_not_change_the_loss():
    """An image beside a larger one: its share of the losses is what it is alone."""
    model = make_gfl()
    small, large = make_input(48, 64, [BOX]), make_input(128, 160, [BOX])
    with torch.no_grad():
        images, anchors, predictions = model.forward_dense([small, large])
        truth = model.ground_truth([small, large], images.image_sizes)
        targets = model.label_anchors(anchors, predictions, truth)
        alone = model([small])["loss_cls"]
        keep = targets._replace(labels=targets.labels.clone())
        keep.labels[1] = -1
        together = model.criterion(anchors, predictions, keep)
    # alone: / foreground; together: / (foreground + 1), as the other image counts as one
    foreground = ((targets.labels[0] >= 0) & (targets.labels[0] < 3)).sum()
    torch.testing.assert_close(
        together["loss_cls"] * (foreground + 1) / foreground, alone, rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("matcher", [ATSSMatcher(), FCOSMatcher()], ids=["atss", "fcos"])
@pytest.mark.parametrize("representation", [DiracDistance, GaussianDistance, GeneralDistribution])
def test_parts_are_swapped_by_passing_them(representation, matcher):
    dist_loss = GaussianNLLLoss() if representation is GaussianDistance else None
    criterion = GFLCriterion(
        cls_loss=FocalLoss(positive_weight=centerness),
        box_loss=GIoULoss(),
        dist_loss=dist_loss,
        quality_loss=QualityBranchLoss(measure=localization_iou),
        box_weight=centerness,
    )
    head = make_head(3, QualityBranch(in_channels=8), representation())
    model = make_gfl(head=head, matcher=matcher, criterion=criterion)
    for batch in ([make_input(64, 96, [BOX, [60.0, 5, 90, 60]], [0, 2])], [make_input(64, 64)]):
        model.zero_grad()
        losses = model(batch)
        assert all(loss.isfinite() for loss in losses.values())
        assert "loss_quality" in losses
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        assert len(model.eval()([make_input(64, 96)])) == 1


def test_overfits_one_image():
    """Losses that fall are the point of all this: one image is learned by heart in 100 steps."""
    model = make_gfl(num_classes=2, test_score_thresh=0.5)
    boxes = [[4.0, 8, 60, 72], [68.0, 16, 124, 80]]
    batch = [make_input(96, 128, boxes, [0, 1])]
    cells = torch.randint(0, 256, (3, 12, 16), dtype=torch.uint8)  # each location looks different
    batch[0]["image"] = cells.repeat_interleave(8, 1).repeat_interleave(8, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(100):
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        instances = model(batch)[0]["instances"]
    assert sorted(instances.pred_classes.tolist()) == [0, 1]
    order = instances.pred_classes.argsort()
    torch.testing.assert_close(
        instances.pred_boxes.tensor[order], torch.tensor(boxes), rtol=0, atol=2.0
    )


def test_a_diverged_run_is_nan_and_no_error():
    """So that Detectron2's trainer can say in which iteration."""
    model = make_gfl()
    torch.nn.init.constant_(model.head.box_logits.bias, float("nan"))
    assert model([make_input(64, 96, [BOX])])["loss_box_reg"].isnan()


@pytest.mark.parametrize("quality", [None, NoQuality()], ids=["v2", "v1"])
def test_a_model_in_bfloat16(quality):
    model = make_gfl(quality_predictor=quality).bfloat16()
    assert sum(model([make_input(64, 96, [BOX])]).values()).isfinite()
    with torch.no_grad():
        model.eval()([make_input(64, 96)])


# Regions without background, 64 x 96: strides 8 and 16, centres at multiples of them.
CROWDS = {
    "one, up to centres": [[16.0, 8, 40, 24]],
    "two that overlap": [[0.0, 0, 33, 33], [30.0, 30, 60, 60]],
    "between the centres": [[1.0, 1, 7, 7]],
    "reaching outside": [[50.0, -20, 500, 40]],
    "none": [],
}


def labels_of(model, inputs):
    """The labels (N, R) of a batch, and its anchors."""
    images, anchors, predictions = model.forward_dense(inputs)
    truth = model.ground_truth(inputs, images.image_sizes)
    return model.label_anchors(anchors, predictions, truth).labels, anchors


@pytest.mark.parametrize("matcher", [ATSSMatcher(), FCOSMatcher()], ids=["atss", "fcos"])
@pytest.mark.parametrize("regions", CROWDS.values(), ids=CROWDS.keys())
def test_crowds_have_no_background(regions, matcher):
    model = make_gfl(matcher=matcher)
    inputs = [make_input(64, 96, [BOX], [1]), make_input(64, 96), make_input(64, 96, [BOX])]
    expected, anchors = labels_of(model, inputs)
    for index in (0, 1):  # not the third image
        inputs[index]["ignore_regions"] = Boxes(torch.tensor(regions).reshape(-1, 4))
    for image in (0, 1):
        for location, (x, y) in enumerate(anchors.centers.tolist()):
            inside = any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in regions)
            if inside and expected[image, location] == 3:
                expected[image, location] = -1
    labels, _ = labels_of(model, inputs)
    assert torch.equal(labels, expected)
    assert (labels[0] == 1).sum() == (labels[2] == 0).sum() > 0  # the box keeps what it claims


def test_crowds_are_ignored_on_every_level():
    """By hand: columns 2..4 and rows 1..2 of stride 8, columns 1..2 and row 1 of stride 16."""
    inputs = make_input(64, 96)
    inputs["ignore_regions"] = Boxes(torch.tensor([[16.0, 8, 40, 24]]))
    labels, anchors = labels_of(make_gfl(), [inputs])
    fine, coarse = labels[0].split(anchors.level_sizes)
    fine, coarse = fine.view(8, 12), coarse.view(4, 6)
    assert (fine[1:3, 2:5] == -1).all() and (fine == -1).sum() == 6
    assert (coarse[1, 1:3] == -1).all() and (coarse == -1).sum() == 2


@pytest.mark.parametrize("quality", [None, NoQuality()], ids=["v2", "v1"])
def test_what_lies_in_a_crowd_teaches_nothing(quality):
    """What the top of a crowd shows changes no loss and no gradient of the head."""
    model = make_gfl(quality_predictor=quality)
    inputs = make_input(96, 96, [[10.0, 66, 80, 95]])
    without = model([inputs])["loss_cls"]
    inputs["ignore_regions"] = Boxes(torch.tensor([[0.0, 0, 96, 64]]))
    results = []
    for value in (0, 255):
        inputs["image"] = inputs["image"].clone()
        inputs["image"][:, :16] = value  # two 3x3 convolutions see two cells, of 16 px, beyond
        model.zero_grad()
        losses = model([inputs])
        sum(losses.values()).backward()
        grads = [p.grad.clone() for n, p in model.named_parameters() if n.startswith("head")]
        results.append((losses, grads))
    assert all(torch.equal(results[0][0][k], results[1][0][k]) for k in results[0][0])
    assert results[0][0]["loss_cls"] < without
    assert sum(g.abs().sum() for g in results[0][1]) > 0
    for grad, other in zip(results[0][1], results[1][1]):
        torch.testing.assert_close(grad, other)


@pytest.mark.parametrize("others", [[], [make_input(64, 96, [BOX])]], ids=["alone", "beside"])
def test_an_image_that_is_all_crowd_trains(others):
    model = make_gfl()
    crowd = make_input(64, 96)
    crowd["ignore_regions"] = Boxes(torch.tensor([[0.0, 0, 96, 64]]))
    labels, _ = labels_of(model, [crowd, *others])
    assert (labels[0] == -1).all()
    losses = model([crowd, *others])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert (losses["loss_cls"] == 0) == (not others)


def test_ignoring_waits_for_no_gpu():
    model = make_gfl()
    inputs = make_input(64, 96, [BOX])
    images, anchors, predictions = model.forward_dense([inputs])
    inputs["ignore_regions"] = Boxes(torch.tensor([[16.0, 8, 41, 24]]))
    truth = model.ground_truth([inputs], images.image_sizes)
    with Synchronisations() as found:
        model.label_anchors(anchors, predictions, truth)
    assert found.found == []
    matched = torch.zeros(1, len(anchors.boxes), dtype=torch.int64)
    for nothing in ([None], [Boxes(torch.zeros(0, 4))], []):
        assert ignore_background_inside(matched, anchors, nothing) is matched


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_ignoring_waits_for_no_gpu_on_cuda():
    inputs = make_input(64, 96, [BOX])
    inputs["ignore_regions"] = Boxes(torch.tensor([[16.0, 8, 41, 24]]))
    expected, _ = labels_of(make_gfl(), [inputs])
    model = make_gfl().cuda()
    images, anchors, predictions = model.forward_dense([inputs])
    try:
        torch.cuda.set_sync_debug_mode("error")
        truth = model.ground_truth([inputs], images.image_sizes)
        labels = model.label_anchors(anchors, predictions, truth).labels
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(labels.cpu(), expected)


def test_bad_regions():
    inputs = make_input(64, 96, image_id=7, file_name="a.jpg")
    inputs["ignore_regions"] = torch.tensor([[16.0, 8, 41, 24]])
    with pytest.raises(TypeError, match=r"image 7 \(a.jpg\) has \"ignore_regions\" of type Tensor"):
        make_gfl()([inputs])
    inputs["ignore_regions"] = Boxes(torch.tensor([[16.0, 8, float("nan"), 24]]))
    with pytest.raises(ValueError, match=r"image 7 \(a.jpg\) has a box \[16.0, 8.0, nan, 24.0\]"):
        make_gfl()([inputs])


def test_construction_errors():
    with pytest.raises(ValueError, match="the head has 3 classes, the detector 4"):
        make_gfl(head=make_head(3), num_classes=4)
    with pytest.raises(ValueError, match=r"the head has 2 levels, head_in_features are \['p4'\]"):
        make_gfl(head_in_features=["p4"])
    with pytest.raises(ValueError, match=r"\['p9'\] are not among \['p3', 'p4'\]"):
        make_gfl(head_in_features=["p3", "p9"])
    generator = DefaultAnchorGenerator(sizes=[[64], [128]], aspect_ratios=[1.0], strides=[8, 32])
    with pytest.raises(ValueError, match=r"strides \[8, 32\].*\[8, 16\]"):
        make_gfl(anchor_generator=generator)


def test_nine_anchors_a_location_are_refused():
    generator = DefaultAnchorGenerator(
        sizes=[[64], [128]], aspect_ratios=[0.5, 1.0, 2.0], strides=[8, 16]
    )
    with pytest.raises(ValueError, match="one anchor a location"):
        make_gfl(anchor_generator=generator)([make_input(32, 32, [BOX])])
