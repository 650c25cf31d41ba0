"""Test-time augmentation, against a merge by hand."""

import pytest
import torch
from detectron2.data.transforms import ResizeTransform
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torchvision.ops import batched_nms

from gfocal.detectors import AugmentedDetector
from gfocal.modeling.suppression import GaussianSoftNMS
from tests.helpers.contract import Blocks, Points, make_spread
from tests.helpers.tiny import make_gfl, make_input
from tests.helpers.tiny_retinanet import make_retinanet
from tests.helpers.toy import ToyDetector


def gfl(**kwargs):
    model = make_gfl(test_score_thresh=0.001, **kwargs).eval()
    torch.nn.init.normal_(model.head.cls_logits.weight, std=1.0)
    torch.nn.init.normal_(model.head.box_logits.weight, std=1.0)
    return model


def retinanet(**kwargs):
    return make_retinanet(cls=RetinaNet, test_score_thresh=0.1, **kwargs).eval()


@pytest.fixture(params=[gfl, retinanet])
def make(request):
    with EventStorage():
        yield request.param


def same(a, b):
    assert len(a) == len(b) > 3
    assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
    assert torch.equal(a.scores, b.scores)
    assert torch.equal(a.pred_classes, b.pred_classes)


@torch.no_grad()
def test_the_identity_alone_changes_nothing(make):
    model = make()
    images = [{**make_input(64, 96), "height": 128, "width": 200}, make_input(64, 80)]
    wanted = model(images)
    for a, b in zip(AugmentedDetector(model, [64], 1000, flip=False)(images), wanted):
        same(a["instances"], b["instances"])
    for a, b in zip(model(images), wanted):  # and the model is as before
        same(a["instances"], b["instances"])


@torch.no_grad()
def test_two_sizes_and_their_mirrors_by_hand(make, monkeypatch):
    model = make()
    image = make_input(64, 96)
    (found,) = AugmentedDetector(model, [64, 96], 1000)([image])
    boxes, scores, classes = [], [], []
    pixels = image["image"].permute(1, 2, 0).numpy()
    large = ResizeTransform(64, 96, 96, 144).apply_image(pixels).copy()
    for x, scale in ((image["image"], 1), (torch.from_numpy(large).permute(2, 0, 1), 1.5)):
        width = x.shape[-1]
        for flip in (False, True):
            alone = make(test_nms_thresh=1.0, max_detections_per_image=100000)
            alone.load_state_dict(model.state_dict())
            with monkeypatch.context() as patch:  # RetinaNet clips after NMS
                patch.setattr(Boxes, "clip", lambda self, size: None)
                one = alone([{"image": x.flip(-1) if flip else x}])[0]["instances"]
            corners = one.pred_boxes.tensor.clone()
            if flip:
                corners[:, 0] = width - one.pred_boxes.tensor[:, 2]
                corners[:, 2] = width - one.pred_boxes.tensor[:, 0]
            boxes.append(corners / scale)
            scores.append(one.scores)
            classes.append(one.pred_classes)
    boxes, scores, classes = (torch.cat(each) for each in (boxes, scores, classes))
    keep = batched_nms(boxes.double(), scores.double(), classes, model.test_nms_thresh)[:100]
    boxes = torch.stack([boxes[:, 0::2].clamp(0, 96), boxes[:, 1::2].clamp(0, 64)], dim=-1).flatten(
        1
    )
    found = found["instances"]
    torch.testing.assert_close(found.scores, scores[keep])
    assert torch.equal(found.pred_classes, classes[keep])
    torch.testing.assert_close(found.pred_boxes.tensor, boxes[keep], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("suppression", [None, GaussianSoftNMS()])
def test_another_detector(suppression):
    """What it has for each size and mirror goes through its own NMS."""
    model = make_spread(Blocks, suppression=suppression)
    images = [{"image": torch.randint(0, 256, (3, 64, 96)).float(), "height": 32, "width": 48}]
    with torch.no_grad():
        (alone,) = model(images)
    (same,) = AugmentedDetector(model, [64], 100, flip=False)(images)
    for name in ("scores", "pred_classes"):
        assert torch.equal(same["instances"].get(name), alone["instances"].get(name))
    assert torch.equal(same["instances"].pred_boxes.tensor, alone["instances"].pred_boxes.tensor)
    # The mirror alone finds the mirrored boxes: they are turned back.
    (mirrored,) = model([{"image": images[0]["image"].flip(-1)}])
    left, top, right, bottom = mirrored["instances"].pred_boxes.tensor.unbind(-1)
    turned = torch.stack([96 - right, top, 96 - left, bottom], dim=-1)
    (both,) = AugmentedDetector(model, [64], 100)([{"image": images[0]["image"]}])
    # The best of all is the best of one of the two.
    best = both["instances"].pred_boxes.tensor[0]
    candidates = torch.cat([2 * alone["instances"].pred_boxes.tensor[:1], turned[:1]])
    assert torch.cdist(best[None], candidates).min() < 1e-3


def test_its_own_flip_is_named():
    model = make_spread(Points)
    with pytest.raises(TypeError, match=r"the model is a Points$"):
        AugmentedDetector(model, [64], 100)
    model.test_flip = False
    with pytest.raises(TypeError, match="is a Points; it has a flip of its own, test_flip"):
        AugmentedDetector(model, [64], 100)


def test_what_is_refused():
    with pytest.raises(TypeError, match="GFL, SSD, CornerNet and RetinaNet; the model is a ToyD"):
        AugmentedDetector(ToyDetector(num_classes=2), [64], 100)
    for sizes in ([], 64, [0], ["64"], [64.0], None):
        with pytest.raises(ValueError, match="min_sizes is .*; expected a list of integers"):
            AugmentedDetector(make_gfl(), sizes, 100)
    with pytest.raises(ValueError, match="max_size is 0; expected"):
        AugmentedDetector(make_gfl(), [64], 0)
