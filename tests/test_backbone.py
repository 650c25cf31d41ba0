"""P6/P7 without a ReLU between, and the yacs builder."""

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone

from gfocal.backbone import LinearP6P7
from gfocal.config import add_gfocal_config


def test_p7_is_linear_in_p5():
    """Without biases P7 is a linear map of P5: a ReLU in between would break f(-x) = -f(x)."""
    block = LinearP6P7(4, 4)
    x = torch.randn(1, 4, 9, 12)
    p6, p7 = block(x)
    assert p6.shape == (1, 4, 5, 6) and p7.shape == (1, 4, 3, 3)
    assert (p6 < 0).any()
    torch.testing.assert_close(block(-x)[1], -p7)
    torch.testing.assert_close(block.p7(p6), p7)


def test_yacs_builder():
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_gfl_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    assert [shapes[f"p{i}"].stride for i in range(3, 8)] == [8, 16, 32, 64, 128]
    assert {s.channels for s in shapes.values()} == {32}
    assert isinstance(backbone.top_block, LinearP6P7)
    assert backbone(torch.randn(1, 3, 64, 96))["p7"].shape == (1, 32, 1, 1)
