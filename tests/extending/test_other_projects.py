"""The code of docs/other_projects.md runs, and does what the page says."""

import importlib.resources
import importlib.util
import re
import runpy
import sys
import types
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.modeling.anchor_generator import RotatedAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransformRotated
from detectron2.structures import BoxMode, RotatedBoxes
from detectron2.utils.events import EventStorage
from PIL import Image

from gfocal import DetectionMapper, aligned_iou, quality_focal_loss
from tests.helpers.detectors import DETECTORS, each_detector, losses_of
from tests.helpers.tiny import make_gfl, make_input
from tests.helpers.tiny_fcos import needs_fcos
from tests.helpers.tiny_rcnn import faster_heads, make_rcnn

pytestmark = pytest.mark.usefixtures("one_thread")
PAGE = Path(__file__).parents[2] / "docs" / "other_projects.md"
BOXES = [[3.0, 2.0, 63.0, 58.0], [60.0, 5.0, 90.0, 60.0]]
needs_compiled = pytest.mark.skipif(
    getattr(importlib.util.find_spec("detectron2._C"), "origin", "").endswith(".py"),
    reason="this Detectron2 has no compiled operators",
)


def sections():
    """{title: python blocks} of the page's sections that have any."""
    parts = re.split(r"^## (.*)$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = {
        title: re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for title, text in zip(parts[::2], parts[1::2])
    }
    return {title: blocks for title, blocks in found.items() if blocks}


@pytest.fixture
def run(tmp_path):
    """Runs a block as a file, with some names in it; returns its names."""

    def run(block, **names):
        file = tmp_path / "block.py"
        file.write_text(block)
        return runpy.run_path(str(file), names)

    return run


@pytest.fixture(autouse=True)
def detectron2s_zoo(monkeypatch):
    """Detectron2's model_zoo asks pkg_resources, which newer setuptools do not have, for a path."""
    if importlib.util.find_spec("pkg_resources") is None:
        stub = types.ModuleType("pkg_resources")
        stub.resource_filename = lambda of, name: str(importlib.resources.files(of) / name)
        monkeypatch.setitem(sys.modules, "pkg_resources", stub)


def check_step(model, expected):
    """A step of training and an inference of a model of 80 classes."""
    batch = [make_input(64, 96, BOXES, [7, 79])]
    with EventStorage():
        losses = model.train()(batch)
    assert set(losses) == expected and all(x.isfinite() for x in losses.values())
    sum(losses.values()).backward()
    assert all(x.grad.isfinite().all() for x in model.parameters() if x.grad is not None)
    with torch.no_grad():
        assert model.eval()(batch)[0]["instances"].image_size == (64, 96)


def test_a_name_in_the_config_of_retinanet(run):
    (block,) = sections()["RetinaNet"]
    model = instantiate(run(block)["cfg"].model)
    assert type(model).__name__ == "QFLRetinaNet"
    check_step(model, {"loss_cls", "loss_box_reg"})


def test_three_steps_in_a_detector_of_your_own(run, monkeypatch):
    """Two anchors of two classes, one image: the first has a box of IoU 1/2, the second none."""

    class MyDetector(torch.nn.Module):
        num_classes = 2

        def decode(self, deltas, anchors):
            return anchors + deltas

        def losses(self, *args):
            return {"loss_cls": torch.tensor(1e9), "loss_box": torch.tensor(3.0)}

    registered = dict(META_ARCH_REGISTRY._obj_map)
    monkeypatch.setattr(META_ARCH_REGISTRY, "_obj_map", registered)
    (block,) = sections()["Your own dense detector"]
    detector = META_ARCH_REGISTRY.get(run(block, MyDetector=MyDetector)["MyQFLDetector"].__name__)()
    logits = torch.tensor([[[0.5, -1.0], [2.0, 0.0], [9.0, 9.0]]], requires_grad=True)
    losses = detector.losses(
        torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10], [0, 0, 5, 5]]),
        logits,
        torch.tensor([[1, 2, -1]]),
        torch.zeros(1, 3, 4),
        torch.tensor([[[0.0, 0, 10, 20]]]).expand(1, 3, 4),
    )
    labels = torch.tensor([[0, 0.5], [0, 0]])
    expected = quality_focal_loss(logits[0, :2], labels, reduction="sum")
    torch.testing.assert_close(losses["loss_cls"], expected)
    assert losses["loss_box"] == 3 and losses["loss_cls"].requires_grad


def test_the_page_shows_the_example():
    example = Path(__file__).with_name("fcos.py").read_text()
    code, _ = sections()["FCOS"]
    assert example.endswith('"""\n\n' + code)


@needs_fcos
def test_fcos(run, tmp_path, monkeypatch):
    code, config = sections()["FCOS"]
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    cfg = run(config)["cfg"]
    model = instantiate(cfg.model)
    assert isinstance(model, sys.modules["mine"].GFLFCOS)
    assert model.head.bbox_pred.out_channels == 4 * 17
    check_step(model, {"loss_cls", "loss_box_reg", "loss_dfl"})


def test_an_rcnn(run):
    (block,) = sections()["R-CNN"]
    cfg = run(block)["cfg"]
    cfg.MODEL.DEVICE, cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = "cpu", 20
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
    model = build_model(cfg)
    assert type(model.proposal_generator).__name__ == "GFLProposals"
    assert list(model.roi_heads.box_in_features) == ["p2", "p3", "p4", "p5"]
    proposals = {"loss_gfl_cls", "loss_gfl_box_reg", "loss_gfl_dfl"}
    check_step(model, proposals | {"loss_cls", "loss_box_reg"})


@needs_compiled
def test_rotated_qfl(run):
    """Upright boxes, and the same boxes turned by 90 degrees, have the IoU of upright boxes; an
    ignored anchor has no loss."""
    (block,) = sections()["Rotated boxes"]
    rotated_qfl = run(block)["rotated_qfl"]
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 3), torch.tensor([[0, 3, -1, 2], [3, 3, 1, 3]])
    anchors = torch.tensor([[30.0, 30, 20, 10, 0]]).repeat(4, 1)
    truth = torch.tensor([32.0, 30, 20, 16, 0]).expand(2, 4, 5)
    turned = torch.tensor([32.0, 30, 16, 20, 90]).expand(2, 4, 5)
    iou = aligned_iou(torch.tensor([20.0, 25, 40, 35]), torch.tensor([22.0, 22, 42, 38]))
    targets = torch.zeros_like(logits)
    targets[[0, 0, 1], [0, 3, 2], [0, 2, 1]] = iou
    valid = labels >= 0
    expected = quality_focal_loss(logits[valid], targets[valid], reduction="sum") / 3
    transform = Box2BoxTransformRotated((1.0,) * 5)
    for boxes in (truth, turned):
        loss = rotated_qfl(transform, anchors, logits, labels, torch.zeros(2, 4, 5), boxes)
        torch.testing.assert_close(loss, expected)
    truth = torch.tensor([32.0, 30, 20, 16, 30]).expand(2, 4, 5)
    other = rotated_qfl(transform, anchors, logits, labels, torch.zeros(2, 4, 5), truth)
    assert abs(other - expected) > 1e-3


def test_every_block_is_run_above():
    source = Path(__file__).read_text()
    for title, blocks in sections().items():
        assert f'sections()["{title}"]' in source, title
        assert len(blocks) == (2 if title == "FCOS" else 1), title


def rotated_input():
    inputs = make_input(64, 96, BOXES[:1])
    inputs["instances"].gt_boxes = RotatedBoxes(torch.tensor([[30.0, 30, 20, 10, 45]]))
    return {**inputs, "file_name": "a.jpg"}


@each_detector
def test_rotated_ground_truth_is_refused(name):
    with pytest.raises(TypeError, match=r"\(a.jpg\) has gt_boxes of type RotatedBoxes; expected"):
        losses_of(DETECTORS[name](), [rotated_input()])


def test_rotated_ground_truth_of_an_rcnn_is_refused():
    with pytest.raises(TypeError, match="image 0 .*gt_boxes of type RotatedBoxes; expected Boxes"):
        losses_of(make_rcnn(faster_heads()), [rotated_input()])


def test_rotated_regions_are_refused():
    regions = RotatedBoxes(torch.tensor([[30.0, 30, 20, 10, 45]]))
    with pytest.raises(TypeError, match='"ignore_regions" of type RotatedBoxes; expected Boxes'):
        losses_of(make_gfl(), [{**make_input(64, 96, BOXES), "ignore_regions": regions}])


def test_rotated_anchors_are_refused():
    generator = RotatedAnchorGenerator(
        sizes=[[64], [128]], aspect_ratios=[1.0], strides=[8, 16], angles=[0.0]
    )
    message = "anchors of a RotatedAnchorGenerator are RotatedBoxes; expected Boxes"
    with pytest.raises(TypeError, match=message):
        make_gfl(anchor_generator=generator)


def test_an_iou_of_rotated_boxes_is_refused():
    boxes = torch.tensor([[30.0, 30, 20, 10, 45]])
    with pytest.raises(ValueError, match=r"shapes \(1, 5\) and \(1, 5\); expected \(\.\.\., 4\)"):
        aligned_iou(boxes, boxes)


def test_rotated_annotations_become_upright(tmp_path):
    """A square turned by 45 degrees becomes the square around it."""
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    record = {"bbox": [30, 20, 10, 10, 45], "bbox_mode": BoxMode.XYWHA_ABS, "category_id": 0}
    mapper = DetectionMapper(True, augmentations=[], image_format="BGR")
    inputs = mapper({"file_name": str(tmp_path / "a.png"), "annotations": [record]})
    half = 10 / 2**0.5
    expected = [30 - half, 20 - half, 30 + half, 20 + half]
    assert inputs["instances"].gt_boxes.tensor[0].tolist() == pytest.approx(expected)
