"""The backbones of yacs configs."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone

from gfocal.backbones import DeepStem, LinearP6P7
from gfocal.config import add_gfocal_config


def yacs(builder, *overrides):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.BACKBONE.NAME = builder
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.merge_from_list(list(overrides))
    return cfg


@pytest.mark.parametrize(
    ("builder", "overrides"),
    [
        (
            "build_gfl_resnet_fpn_backbone",
            ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64],
        ),
        (
            "build_gfl_resnet_fpn_backbone",
            ["MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True]],
        ),
        (
            "build_gfl_res2net_fpn_backbone",
            ["MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, True, True]]
            + ["MODEL.RESNETS.DEFORM_MODULATED", True],
        ),
    ],
)
def test_yacs_builders(builder, overrides):
    backbone = build_backbone(yacs(builder, *overrides))
    shapes = backbone.output_shape()
    assert [shapes[f"p{i}"].stride for i in range(3, 8)] == [8, 16, 32, 64, 128]
    assert {s.channels for s in shapes.values()} == {32}
    assert isinstance(backbone.top_block, LinearP6P7)
    assert backbone(torch.randn(1, 3, 64, 96))["p7"].shape == (1, 32, 1, 1)


def test_yacs_builders_reach_the_layers():
    with torch.device("meta"):
        resnet = build_backbone(
            yacs(
                "build_gfl_resnet_fpn_backbone",
                *("MODEL.RESNETS.NUM_GROUPS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
                *("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, True, True]),
                *("MODEL.RESNETS.DEFORM_NUM_GROUPS", 2, "MODEL.RESNETS.DEFORM_MODULATED", True),
            )
        ).bottom_up
        res2net = build_backbone(
            yacs("build_gfl_res2net_fpn_backbone", "MODEL.RES2NET.SCALES", 3)
        ).bottom_up
    assert not hasattr(resnet.res3[0], "conv2_offset")
    assert resnet.res4[0].conv2_offset.out_channels == 2 * 27
    assert (resnet.res4[0].conv2.groups, resnet.res4[0].conv2.out_channels) == (32, 512)
    assert isinstance(res2net.stem, DeepStem)
    assert len(res2net.res2[0].conv2) == 2 and res2net.res2[0].conv1.out_channels == 3 * 26


@pytest.mark.parametrize("key", ["RES5_DILATION", "RES2_OUT_CHANNELS", "STEM_OUT_CHANNELS"])
def test_yacs_keys_with_one_value(key):
    cfg = yacs("build_gfl_resnet_fpn_backbone", f"MODEL.RESNETS.{key}", 2)
    with torch.device("meta"), pytest.raises(ValueError, match=rf"RESNETS.{key} is 2; expected"):
        build_backbone(cfg)
