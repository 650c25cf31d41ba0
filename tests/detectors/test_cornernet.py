"""CornerNet as a whole. (What all detectors share is tested in scenarios/.)"""

import math

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from torch import nn

from gfocal import model_zoo
from gfocal.backbones import Hourglass
from gfocal.config import add_gfocal_config
from gfocal.detectors.cornernet import CornerNet
from gfocal.export import export_model
from gfocal.export.formats import FORMATS
from gfocal.modeling.corner_head import CornerHead
from gfocal.modeling.corners import STRIDE, CornerMaps, CornerPredictions
from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.settings import UNSET
from gfocal.modeling.suppression import GaussianSoftNMS, HardNMS
from tests.helpers.tiny import TinyBackbone, make_input
from tests.helpers.tiny_cornernet import make_cornernet

BOXES = [[3.0, 2.0, 63.0, 58.0], [60.0, 5.0, 90.0, 60.0], [20.0, 20.0, 33.0, 35.0]]


def perfect_predictions(boxes, classes, num_classes=3, height=16, width=24):
    """What a perfect network says of one image: sure peaks, the true offsets, an embedding an
    object."""
    corners = []
    for x, y in ((0, 1), (2, 3)):
        heat = torch.full((1, num_classes, height, width), -20.0)
        embeddings, offsets = torch.zeros(1, 1, height, width), torch.zeros(1, 2, height, width)
        for number, (box, label) in enumerate(zip(boxes, classes)):
            point = torch.tensor([box[x], box[y]]) / STRIDE
            column, row = point.long().tolist()
            heat[0, label, row, column] = 5.0 - number
            embeddings[0, 0, row, column] = 2.0 * number
            offsets[0, :, row, column] = point - point.long()
        corners.append(CornerMaps(heat, embeddings, offsets))
    return CornerPredictions((tuple(corners),))


def mirrored(predictions, width):
    """What the network says of the mirror: the corners of the mirrored boxes."""
    (stack,) = predictions.stacks
    boxes = [[width - 63.0, 2, width - 3, 58], [width - 90.0, 5, width - 60, 60]]
    return stack, perfect_predictions(boxes, [0, 2]).stacks[0]


def test_perfect_predictions_are_found():
    model = make_cornernet().eval()
    (found,) = model.inference(perfect_predictions(BOXES, [0, 2, 0]), [(64, 96)])
    sure = found[found.scores > 0.5]
    torch.testing.assert_close(sure.pred_boxes.tensor, torch.tensor(BOXES))
    assert sure.pred_classes.tolist() == [0, 2, 0]
    # the mean of two equal scores, and no box overlaps another of its class enough to matter much
    expected = torch.tensor([5.0, 4.0]).sigmoid()
    torch.testing.assert_close(sure.scores[:2], expected)


def test_perfect_predictions_cost_little():
    model = make_cornernet()
    batch = [make_input(64, 96, BOXES, [0, 2, 0])]
    truth = model.ground_truth(batch, [(64, 96)])
    losses = model.losses(perfect_predictions(BOXES, [0, 2, 0]), truth)
    assert losses["loss_offset"] == losses["loss_pull"] == losses["loss_push"] == 0
    assert losses["loss_heatmap"] < 0.02


def test_both_answers_of_a_flip_go_into_one_nms():
    model = make_cornernet(suppression=GaussianSoftNMS()).eval()
    boxes, classes = BOXES[:2], [0, 2]
    both = mirrored(perfect_predictions(boxes, classes), 96)
    predictions = CornerPredictions((both[0],), both[1])
    (found,) = model._candidates(predictions)
    sure = found.scores > 0.5
    torch.testing.assert_close(found.boxes[sure], torch.tensor(boxes * 2))
    (result,) = model.inference(predictions, [(64, 96)])
    # Soft-NMS of two equal boxes: the second gets exp(-1 / 0.5) of its score.
    firsts = torch.tensor([5.0, 4.0]).sigmoid()
    expected = torch.cat([firsts, firsts * torch.exp(torch.tensor(-2.0))])
    torch.testing.assert_close(result.scores[:4], expected)


def test_test_flip_predicts_the_mirror():
    torch.manual_seed(0)
    plain, flipping = make_cornernet().eval(), make_cornernet(test_flip=True).eval()
    flipping.load_state_dict(plain.state_dict())
    image = make_input(64, 96)
    mirror = {**image, "image": image["image"].flip(-1)}
    with torch.no_grad():
        own, other = (plain.candidates([x])[0] for x in (image, mirror))
        (both,) = flipping.candidates([image])
    x0, y0, x1, y1 = other.boxes.unbind(1)
    expected = torch.cat([own.boxes, torch.stack([96 - x1, y0, 96 - x0, y1], dim=1)])
    torch.testing.assert_close(both.boxes, expected)
    assert len(flipping.train().predict(torch.randn(2, 3, 64, 96))[0].stacks) == 2


def test_test_flip_mirrors_the_images_and_not_their_padding():
    """Each image of a batch as the mirror of the image itself, which is padded on its right too."""
    torch.manual_seed(0)
    plain, flipping = make_cornernet().eval(), make_cornernet(test_flip=True).eval()
    flipping.load_state_dict(plain.state_dict())
    sizes = [(64, 95), (50, 70)]
    batch = [make_input(*size) for size in sizes]
    mirrors = [{**x, "image": x["image"].flip(-1)} for x in batch]
    with torch.no_grad():
        others, both = plain.candidates(mirrors), flipping.candidates(batch)
    for other, found, (_, width) in zip(others, both, sizes):
        x0, y0, x1, y1 = other.boxes.unbind(1)
        expected = torch.stack([width - x1, y0, width - x0, y1], dim=1)
        torch.testing.assert_close(found.boxes[-len(other.boxes) :], expected)
        torch.testing.assert_close(found.scores[-len(other.boxes) :], other.scores)


def test_only_the_last_stack_is_computed_in_inference():
    model = make_cornernet().eval()
    (predictions,) = model.predict(torch.randn(1, 3, 32, 32))
    assert len(predictions.stacks) == 1
    raw = model.raw(torch.randn(1, 3, 32, 32))
    assert len(raw) == 12 and raw["bottom_right_offset_stack2"].shape == (1, 2, 8, 8)


def test_decoded_candidates_are_those_of_the_detector():
    torch.manual_seed(0)
    model = make_cornernet().eval()
    batch = [make_input(64, 96), make_input(64, 96)]
    with torch.no_grad():
        boxes, scores = model.decode(model.preprocess_image(batch).tensor)
        candidates = model.candidates(batch)
    assert boxes.shape[:2] == scores.shape[:2] == (2, 1000) and scores.shape[2] == 3
    for image, found in enumerate(candidates):
        assert len(found.scores) > 3
        rows = found.location_idxs
        assert torch.equal(boxes[image, rows], found.boxes)
        assert torch.equal(scores[image, rows, found.classes], found.scores)
        assert (scores[image] > 0).sum() == len(rows)


def test_a_trace_of_the_decoded_level_is_right_for_other_images():
    torch.manual_seed(0)
    model = make_cornernet().eval().requires_grad_(False)
    with torch.no_grad():
        traced = torch.jit.trace(
            lambda x: model.decode(x), torch.randn(1, 3, 64, 64), check_trace=False
        )
        for shape in ((1, 3, 64, 64), (2, 3, 96, 160)):
            images = torch.randn(shape)
            for one, two in zip(traced(images), model.decode(images)):
                torch.testing.assert_close(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_exports_of_the_decoded_level(format, tmp_path):
    """An export compares the file with the detector on images of several sizes."""
    torch.manual_seed(0)
    path = tmp_path / f"model{FORMATS[format].suffix}"
    model = make_cornernet(num_stacks=1).eval()
    export_model(model, path, format=format, level="decoded")
    found = FORMATS[format].read(path)(torch.zeros(1, 3, 70, 90))
    boxes, scores = found["boxes"], found["scores"]
    assert boxes.shape == (1, 1000, 4) and scores.shape == (1, 1000, 3)


def test_a_padded_image():
    """It lies at (left 10, top 20) of the padded one; what is left of it or above is cut."""
    model = make_cornernet().eval()
    (result,) = model.inference(perfect_predictions([[2.0, 30, 50, 60]], [1]), [(64, 96)])
    inputs = {"border": (20, 10), "content_size": (40, 80), "height": 80, "width": 80}
    found = model.in_output(result, inputs, (64, 96))
    assert found.image_size == (80, 80)
    best = found.pred_boxes.tensor[found.scores.argmax()]
    torch.testing.assert_close(best, torch.tensor([0.0, 20, 40, 80]))


def test_crowds_have_no_background():
    """Inside of them only the objects' own cells count."""
    torch.manual_seed(0)
    model = make_cornernet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    inputs = make_input(64, 96, BOXES[:1])
    half = Boxes(torch.tensor([[0.0, 0, 48, 64]]))
    plain, crowd = (model([{**inputs, "ignore_regions": x}])["loss_heatmap"] for x in (None, half))
    assert 0 < crowd < plain
    everything = Boxes(torch.tensor([[0.0, 0, 96, 64]]))
    for boxes, cells in (([], 0), (BOXES[:1], 4)):  # two corners on two stacks
        (predictions,) = model.predict(model.preprocess_image([inputs]).tensor)
        flat = CornerPredictions(
            tuple(
                tuple(x._replace(heat_logits=torch.zeros(1, 3, 16, 24)) for x in stack)
                for stack in predictions.stacks
            )
        )
        batch = [{**make_input(64, 96, boxes), "ignore_regions": everything}]
        truth = model.ground_truth(batch, [(64, 96)])
        # a cell of score 0.5 costs 0.25 log 2; one object, and the average of two corners
        expected = cells / 2 * 0.25 * math.log(2)
        assert model.losses(flat, truth)["loss_heatmap"].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"in_features": ["stack1", "stack7"]}, ValueError, r"\['stack7'\] are not among"),
        ({"in_features": ["stack2"]}, ValueError, "2 stacks; expected"),
        ({"num_classes": 4, "head": CornerHead(in_channels=8, num_classes=3)}, ValueError,
         "3 classes"),
        ({"backbone": TinyBackbone(), "in_features": ["p3", "p4"]}, ValueError, r"strides \[8, 16"),
        ({"num_corners": 0}, ValueError, "num_corners is 0"),
        ({"max_distance": -1.0}, ValueError, "max_distance is -1.0"),
        ({"test_flip": "yes"}, ValueError, "test_flip is 'yes'"),
        ({"test_score_thresh": [0.1]}, ValueError, "score_thresh has 1 numbers"),
        ({"postprocess": lambda *args: []}, TypeError, "expected an NMSPostProcess"),
        ({"postprocess": NMSPostProcess(), "test_score_thresh": 0.2}, ValueError, "does not read"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(kwargs, error, message):
    num_classes = kwargs.pop("num_classes", 3)
    with pytest.raises(error, match=message):
        make_cornernet(num_classes, **kwargs)


def test_what_is_not_said_is_published():
    model = make_cornernet(suppression=UNSET)
    assert isinstance(model.postprocess.suppression, GaussianSoftNMS)
    assert model.test_score_thresh == 0 and model.test_topk_candidates == 1000
    assert model.postprocess.suppression.class_shift
    assert isinstance(make_cornernet(test_nms_thresh=0.5).postprocess.suppression, HardNMS)


def test_yacs():
    """Its defaults are those of the LazyConfig."""
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = "CornerNet", "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_hourglass_backbone"
    cfg.MODEL.CORNERNET.NUM_CLASSES = 5
    cfg.MODEL.CORNERNET.HOURGLASS.CHANNELS = [8, 8, 12]
    cfg.MODEL.CORNERNET.HOURGLASS.BLOCKS = [1, 1, 1]
    cfg.MODEL.CORNERNET.HOURGLASS.OUT_CHANNELS = 8
    model = build_model(cfg)
    assert isinstance(model, CornerNet) and isinstance(model.backbone, Hourglass)
    lazy = model_zoo.get_config("COCO-Detection/cornernet_HG_104.py").model
    lazy.num_classes = 5
    lazy.backbone.channels, lazy.backbone.blocks = [8, 8, 12], [1, 1, 1]
    lazy.backbone.out_channels = 8
    other = instantiate(lazy)
    assert repr(model) == repr(other)
    for name in ("num_corners", "max_distance", "test_flip", "in_features"):
        assert getattr(model, name) == getattr(other, name), name
    assert repr(model.postprocess) == repr(other.postprocess)
    cfg.MODEL.CORNERNET.IN_FEATURES = ["stack3"]
    with pytest.raises(ValueError, match="IN_FEATURES is .'stack3'.; expected maps"):
        build_model(cfg)
