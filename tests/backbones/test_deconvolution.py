"""The neck of CenterNet."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from torch import nn

from gfocal.backbones import DeconvolutionNeck, DeformConv2d, make_resnet_stages
from gfocal.backbones.deconvolution import UpsampleBlock
from gfocal.config import add_gfocal_config


def make_neck(**kwargs):
    stem = BasicStem(norm="BN")
    resnet = ResNet(stem, make_resnet_stages(depth=18, norm="BN"), out_features=["res5"])
    return DeconvolutionNeck(bottom_up=resnet, **{"channels": [16, 8, 4], **kwargs})


@pytest.mark.parametrize("deformable", [False, True])
def test_shapes(deformable):
    neck = make_neck(deformable=deformable).eval()
    (name,) = neck.output_shape()
    assert name == "p2" and neck.size_divisibility == 32
    assert (neck.output_shape()["p2"].channels, neck.output_shape()["p2"].stride) == (4, 4)
    assert neck(torch.randn(2, 3, 64, 96))["p2"].shape == (2, 4, 16, 24)
    assert [isinstance(x.conv, DeformConv2d) for x in neck.blocks] == [deformable] * 3
    assert make_neck(channels=[16, 8]).output_shape()["p3"].stride == 8


def test_it_starts_as_bilinear_interpolation():
    """Twice the size, and each channel on its own: the same as interpolation, away from the
    border (which interpolation repeats, and a transposed convolution takes for 0)."""
    block = UpsampleBlock(3, 3, norm="")
    x = torch.randn(1, 3, 6, 7)
    found = block.up(x)
    expected = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_a_deformable_block_starts_as_half_a_plain_one():
    """Offsets are 0 and the samples' weights sigmoid(0)."""
    torch.manual_seed(0)
    plain, deformable = (UpsampleBlock(3, 5, deformable=x, norm="") for x in (False, True))
    missing = deformable.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["conv_offset.weight", "conv_offset.bias"]
    nn.init.zeros_(plain.conv.bias)
    nn.init.zeros_(deformable.conv.bias)
    x = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(deformable(x), plain(x) / 2)


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r"NECK.IN_FEATURE. is 'res4'; expected one of \['res5'\]"):
        make_neck(in_feature="res4")
    with pytest.raises(ValueError, match="channels are .*; expected one number a block"):
        make_neck(channels=[8] * 6)
    with pytest.raises(ValueError, match="size_divisibility is 48; expected a multiple of .* 32"):
        make_neck(size_divisibility=48)


def test_yacs():
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_resnet_deconvolution_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    cfg.MODEL.CENTERNET.NECK.CHANNELS = [16, 8, 4]
    cfg.MODEL.CENTERNET.NECK.DEFORMABLE = True
    backbone = build_backbone(cfg)
    expected = make_neck(deformable=True)
    shapes = {name: x.shape for name, x in backbone.state_dict().items()}
    assert shapes == {name: x.shape for name, x in expected.state_dict().items()}
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    with pytest.raises(ValueError, match="NECK.IN_FEATURE. is 'res5'"):
        build_backbone(cfg)
