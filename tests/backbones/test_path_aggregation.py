import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.backbone.fpn import FPN
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from torch.nn import functional as F

from gfocal.backbones import LinearP6P7, PathAggregation, make_resnet_stages
from tests.helpers.tiny import TinyBackbone

pytestmark = pytest.mark.usefixtures("one_thread")


def make_resnet():
    return ResNet(
        stem=BasicStem(in_channels=3, out_channels=64, norm="BN"),
        stages=make_resnet_stages(depth=18, norm="BN"),
        out_features=["res3", "res4", "res5"],
    )


def make_neck(**kwargs):
    return PathAggregation(**{"pyramid": TinyBackbone(), "in_features": ["p3", "p4"], **kwargs})


def test_by_definition():
    """N3 = P3; N4 = conv(halved N3 + P4), with this module's own weights."""
    torch.manual_seed(0)
    neck = make_neck()
    x = torch.randn(2, 3, 32, 48)
    found, below = neck(x), neck.pyramid(x)
    assert torch.equal(found["p3"], below["p3"])
    halved = F.conv2d(below["p3"], neck.halve[0].weight, neck.halve[0].bias, stride=2, padding=1)
    expected = F.conv2d(halved + below["p4"], neck.merge[0].weight, neck.merge[0].bias, padding=1)
    torch.testing.assert_close(found["p4"], expected)
    assert neck.size_divisibility == 16


def test_maps_of_the_top_block():
    neck = make_neck(top_block=LinearP6P7(8, 8), norm="BN")
    maps, shapes = neck(torch.randn(1, 3, 64, 64)), neck.output_shape()
    assert list(maps) == list(shapes) == ["p3", "p4", "p5", "p6"]
    assert [x.shape[-1] for x in maps.values()] == [8, 4, 2, 1]
    assert [x.stride for x in shapes.values()] == [8, 16, 32, 64]
    assert {x.channels for x in shapes.values()} == {8}
    assert neck.halve[0].bias is None


def test_behind_an_fpn():
    fpn = FPN(bottom_up=make_resnet(), in_features=["res3", "res4", "res5"], out_channels=8)
    neck = PathAggregation(pyramid=fpn, top_block=LinearP6P7(8, 8))
    sizes = [x.shape[-1] for x in neck(torch.randn(1, 3, 64, 64)).values()]
    assert sizes == [8, 4, 2, 1, 1] and neck.size_divisibility == 32


@pytest.mark.parametrize(
    ("in_features", "message"),
    [
        (["p3", "p5"], r"in_features has \['p5'\]; the pyramid has \['p3', 'p4'\]"),
        (["p4", "p3"], r"channels \[8\] and strides \[16, 8\]; expected one width, and twice"),
    ],
)
def test_mistakes(in_features, message):
    with pytest.raises(ValueError, match=message):
        make_neck(in_features=in_features)


@pytest.mark.parametrize("name", ["TimmBackbone", "PathAggregation"])
def test_the_example_of_the_docs(name):
    text = (Path(__file__).parents[2] / "docs/extend.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    code = next(block for block in blocks if f"L({name})" in block)
    names = {}
    exec(code.replace("pretrained=True", "pretrained=False"), names)  # noqa: S102
    cfg = names["cfg"]
    cfg.model.num_classes = 3
    with torch.device("meta"):
        model = instantiate(cfg.model)
        _, predictions = model.predict(torch.zeros(1, 3, 64, 64))
    assert predictions.cls_logits.shape == (1, 86, 3)
