"""Levels and channels that do not fit together are named by their keys; the recipe of P2 works."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from gfocal import model_zoo
from gfocal.config import add_gfocal_config, apply_overrides, check_model
from gfocal.config.levels import channels_of
from tests.helpers.tiny import make_input

DOC = (Path(__file__).parents[2] / "docs/extend.md").read_text()
RECIPE = re.findall(r"^    (model\.\S+=\S+?)(?: \\)?$", DOC, re.MULTILINE)
SMALL = ["model.backbone.out_channels=32", "model.head.conv_dims=[64]"]


def config(*overrides):
    cfg = model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.py")
    return apply_overrides(cfg, [*SMALL, *overrides])


def test_the_recipe_of_p2_trains():
    assert len(RECIPE) == 6
    cfg = config(*RECIPE)
    check_model(cfg)
    model = instantiate(cfg.model)
    with EventStorage():
        losses = model([make_input(256, 256, [[4, 4, 20, 24]])])
    sum(losses.values()).backward()
    assert model.backbone.fpn_output2.weight.grad.abs().sum() > 0
    assert model.strides == [4, 8, 16, 32, 64, 128]


@pytest.mark.parametrize("left_out", range(6))
def test_each_key_of_the_recipe_is_named_when_it_is_left_out(left_out):
    key = RECIPE[left_out].split("=")[0]
    cfg = config(*RECIPE[:left_out], *RECIPE[left_out + 1 :])
    with pytest.raises(ValueError, match=re.escape(key)):
        check_model(cfg)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.backbone.in_features=[res3,res5]"],
            "model.backbone.in_features is ['res3', 'res5']; expected stages one after the other",
        ),
        (
            ["model.backbone.in_features=[res5,res4,res3]"],
            "in_features is ['res5', 'res4', 'res3']; expected stages one after the other, finest",
        ),
        (
            ["model.backbone.in_features=[res3,res4]"],
            "model.backbone.top_block.in_feature is 'p5'; expected 'p4' or 'res4', the last of",
        ),
        (
            ["model.backbone.top_block=null"],
            "model.head_in_features has ['p6', 'p7'], but model.backbone makes ['p3', 'p4', 'p5']",
        ),
        (
            ["model.head_in_features=[p3,p4,p5,p6]"],
            "model.head.num_levels is 5; expected 4, for the 4 levels ['p3', 'p4', 'p5', 'p6'] of",
        ),
        (
            ["model.anchor_generator.sizes=[[64],[128]]"],
            "model.anchor_generator.sizes is [[64], [128]]; expected a list for each of the 5",
        ),
        (
            ["model.pixel_mean=[100.0]"],
            "model.pixel_std is [58.395, 57.12, 57.375]; expected a number for each of the 1 chan",
        ),
        (
            ["model.pixel_mean=[100.0]", "model.pixel_std=[50.0]"],
            "model.backbone.bottom_up.stem.in_channels is 3; expected 1, for the 1 channels of",
        ),
        (
            ["model.input_format=RGBA"],
            "dataloader.train.mapper.image_format is 'RGBA', of 4 channels (usually it is model.i",
        ),
        (["model.input_format=L"], "is 'L', of 1 channels"),
        (["model.input_format=bgr"], "is 'bgr' (usually it is model.input_format); expected BGR,"),
        (["dataloader.test.mapper.image_format=L"], "dataloader.test.mapper.image_format is 'L'"),
    ],
)
def test_what_does_not_fit_together(overrides, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_model(config(*overrides))


def test_other_channels_that_fit_are_taken():
    grey = ["model.pixel_mean=[100.0]", "model.pixel_std=[50.0]", "model.input_format=L"]
    cfg = config(*grey, "model.backbone.bottom_up.stem.in_channels=1")
    check_model(cfg)
    model = instantiate(cfg.model).eval()
    image = torch.zeros(1, 256, 256, dtype=torch.uint8)
    with torch.no_grad():
        model([{"image": image}])
        for channels in (3, 4):  # (three would be broadcast)
            with pytest.raises(ValueError, match=f"image of {channels} channels; pixel_mean has 1"):
                model([{"image": image.expand(channels, 256, 256), "file_name": "a.png"}])
    assert channels_of("a mode of PIL") is None


def yacs(*opts):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file("COCO-Detection/gflv2_R_50_FPN_1x.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *opts])
    return cfg


def test_yacs():
    stages, levels = ["res2", "res3", "res4", "res5"], ["p2", "p3", "p4", "p5", "p6", "p7"]
    outputs = ["MODEL.RESNETS.OUT_FEATURES", stages]
    inputs = ["MODEL.FPN.IN_FEATURES", stages]
    model = build_model(yacs(*outputs, *inputs, "MODEL.GFL.IN_FEATURES", levels))
    assert model.strides == [4, 8, 16, 32, 64, 128]
    with pytest.raises(ValueError, match=r"MODEL.FPN.IN_FEATURES has \['res2'\]; expected some"):
        build_model(yacs(*inputs))
    with pytest.raises(ValueError, match=r"INPUT.FORMAT is 'bgr'; expected BGR, RGB, L"):
        check_model(yacs("INPUT.FORMAT", "bgr"))
    with pytest.raises(ValueError, match=r"MODEL.FPN.IN_FEATURES is .*'res4'\]; .* to res5"):
        build_model(yacs("MODEL.FPN.IN_FEATURES", ["res3", "res4"]))
    with pytest.raises(ValueError, match=r"MODEL.GFL.IN_FEATURES has \['p2'\]; expected maps of"):
        build_model(yacs("MODEL.GFL.IN_FEATURES", levels))
