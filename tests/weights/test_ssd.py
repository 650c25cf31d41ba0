"""Weights of SSD: mmdetection's names, and a VGG-16 for its backbone."""

import logging

import pytest
import torch
import torchvision
from detectron2.config import instantiate

from gfocal.config import model_zoo
from gfocal.weights import (
    GFLCheckpointer,
    convert_imagenet_state_dict,
    convert_mmdet_checkpoint,
    convert_mmdet_state_dict,
    to_mmdet_state_dict,
)
from gfocal.weights.fit import expected_state_dict
from gfocal.weights.tables import SSD, table_of
from tests.helpers import official


@pytest.fixture(scope="module")
def theirs():
    """The names and shapes of mmdetection's SSD512 with five classes, with no numbers."""
    fixture = official.load("ssd512")
    shapes = official.named_shapes(fixture["param_names"], fixture["param_shapes"])
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_every_name_and_back(theirs):
    assert table_of(theirs) is SSD
    ours = convert_mmdet_state_dict(theirs)
    cfg = model_zoo.get_config("COCO-Detection/ssd512_VGG_16.py").model
    cfg.num_classes = 5
    expected = expected_state_dict(cfg)
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in expected.items()}
    assert table_of(ours) is SSD and SSD.classes_of(ours) == 5
    back = to_mmdet_state_dict(ours)
    assert back.keys() == theirs.keys() and all(back[name] is theirs[name] for name in theirs)


def test_numbers_of_classes(theirs):
    assert convert_mmdet_state_dict(theirs, num_classes=5)
    with pytest.raises(ValueError, match="of 5 classes; expected num_classes 6"):
        convert_mmdet_state_dict(theirs, num_classes=6)


def small_detector():
    cfg = model_zoo.get_config("COCO-Detection/ssd512_VGG_16.py").model
    cfg.backbone.bottom_up.width = 2
    torch.manual_seed(0)
    return cfg, instantiate(cfg)


def test_a_checkpoint_with_a_hole(tmp_path):
    cfg, model = small_detector()
    state_dict = to_mmdet_state_dict(model.state_dict())
    torch.save({"state_dict": state_dict}, tmp_path / "ssd.pth")
    converted, _ = convert_mmdet_checkpoint(tmp_path / "ssd.pth", model_cfg=cfg)
    assert all(torch.equal(converted[k], v) for k, v in model.state_dict().items())
    del state_dict["neck.extra_layers.3.1.conv.bias"]
    torch.save({"state_dict": state_dict}, tmp_path / "ssd.pth")
    with pytest.raises(ValueError, match=r"neck\.extra_layers\.3\.1\.conv\.bias: missing"):
        convert_mmdet_checkpoint(tmp_path / "ssd.pth", model_cfg=cfg)


def vgg16():
    """torchvision's names, with an eighth of the numbers of the convolutions."""
    with torch.device("meta"):
        names = torchvision.models.vgg16().state_dict()
    model = small_detector()[1]
    ours = {
        k.removeprefix("backbone."): v
        for k, v in to_mmdet_state_dict(model.state_dict(), SSD).items()
        if k.startswith("backbone.")
    }
    return {k: torch.rand_like(ours.get(k, torch.zeros(1))) for k in names}


def test_torchvisions_vgg16(tmp_path, caplog):
    theirs = vgg16()
    assert len(theirs) == 32 and "classifier.0.weight" in theirs
    torch.save(theirs, tmp_path / "vgg16.pth")
    model = small_detector()[1]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with caplog.at_level(logging.INFO):
        GFLCheckpointer(model).load(str(tmp_path / "vgg16.pth"))
    assert "no conv6 and conv7" in caplog.text and "start untrained" in caplog.text
    own = model.state_dict()
    assert torch.equal(own["backbone.bottom_up.conv5_3.weight"], theirs["features.28.weight"])
    assert torch.equal(own["backbone.bottom_up.conv1_1.bias"], theirs["features.0.bias"])
    loaded = {name for name in own if not torch.equal(own[name], before[name])}
    assert len(loaded) == 26  # 13 convolutions


def test_a_vgg16_with_conv6_and_conv7(tmp_path, caplog):
    theirs = {k: v for k, v in vgg16().items() if k.startswith("features.")}
    own = small_detector()[1].backbone.bottom_up.state_dict()
    for place, layer in ((31, "conv6"), (33, "conv7")):
        for part in ("weight", "bias"):
            theirs[f"features.{place}.{part}"] = torch.rand_like(own[f"{layer}.{part}"])
    torch.save(theirs, tmp_path / "vgg16.pth")
    model = small_detector()[1]
    GFLCheckpointer(model).load(str(tmp_path / "vgg16.pth"))
    assert "no conv6" not in caplog.text
    found = model.backbone.bottom_up.conv7.weight
    assert torch.equal(found, theirs["features.33.weight"])


def test_a_vgg16_with_a_hole(tmp_path):
    theirs = vgg16()
    del theirs["features.12.bias"]
    torch.save(theirs, tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match=r"conv3_2\.bias: missing in the file"):
        GFLCheckpointer(small_detector()[1]).load(str(tmp_path / "vgg16.pth"))


def test_other_vggs_are_refused():
    with torch.device("meta"):
        with_norm, deeper = torchvision.models.vgg16_bn(), torchvision.models.vgg19()
    for network in (with_norm, deeper):
        with pytest.raises(ValueError, match=r"keys are not of a ResNet, .* or VGG-16"):
            convert_imagenet_state_dict(network.state_dict())
