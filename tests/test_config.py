"""The yacs side: the same detector as the LazyConfig's, and names looked up in one table."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model

from gfocal import recipes
from gfocal.config import add_gfocal_config
from gfocal.quality import NoQuality

CONFIGS = Path(__file__).parents[1] / "configs"


def yacs(name, *overrides):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "COCO-Detection" / f"{name}_R_50_FPN_1x.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *overrides])
    return cfg


@pytest.mark.parametrize("name", ["gfl", "gflv2"])
def test_twins_are_the_same_detector(name):
    twin = build_model(yacs(name))
    lazy = LazyConfig.load(str(CONFIGS / "COCO-Detection" / f"{name}_R_50_FPN_1x.py")).model
    model = instantiate(lazy)
    assert str(model) == str(twin)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in twin.state_dict().items()
    }
    for attribute in (
        "strides",
        "head_in_features",
        "num_classes",
        "test_score_thresh",
        "test_topk_candidates",
        "test_nms_thresh",
        "max_detections_per_image",
        "input_format",
    ):
        assert getattr(model, attribute) == getattr(twin, attribute), attribute
    assert repr(model.matcher) == repr(twin.matcher)
    assert torch.equal(model.pixel_mean, twin.pixel_mean)
    for cell, twin_cell in zip(
        model.anchor_generator.cell_anchors, twin.anchor_generator.cell_anchors
    ):
        assert torch.equal(cell, twin_cell)
    for term, twin_term in zip(model.criterion.children(), twin.criterion.children()):
        assert vars(term).get("weight") == vars(twin_term).get("weight")
        assert vars(term).get("beta") == vars(twin_term).get("beta")


def test_keys_reach_their_parts():
    model = build_model(
        yacs(
            "gflv2",
            "MODEL.GFL.NUM_CLASSES", 7,
            "MODEL.GFL.REG_MAX", 8,
            "MODEL.GFL.BIN_WIDTH", 2.0,
            "MODEL.GFL.DGQP.TOPK", 3,
            "MODEL.GFL.DGQP.ADD_MEAN", False,
            "MODEL.GFL.DGQP.HIDDEN_DIM", 16,
            "MODEL.GFL.ATSS_TOPK", 5,
            "MODEL.GFL.QFL_BETA", 1.5,
            "MODEL.GFL.LOSS_CLS_WEIGHT", 3.0,
            "MODEL.GFL.LOSS_BOX_REG_WEIGHT", 4.0,
            "MODEL.GFL.LOSS_DFL_WEIGHT", 5.0,
            "MODEL.GFL.NUM_CONVS", 1,
            "MODEL.GFL.CONV_DIM", 32,
            "MODEL.GFL.ANCHOR_OFFSET", 0.5,
            "MODEL.GFL.NMS_THRESH_TEST", 0.7,
        )
    )  # fmt: skip
    assert model.num_classes == model.head.num_classes == 7
    assert model.head.box_representation.reg_max == 8
    assert model.head.box_representation.bin_width == 2.0
    assert model.head.quality_predictor.fc1.weight.shape == (16, 12)
    assert model.matcher.topk == 5
    assert model.criterion.cls_loss.beta == 1.5
    assert model.criterion.cls_loss.weight == 3.0
    assert model.criterion.box_loss.weight == 4.0
    assert model.criterion.dist_loss.weight == 5.0
    assert len(model.head.cls_tower) == 1 and model.head.cls_tower[0].out_channels == 32
    assert model.anchor_generator.offset == 0.5
    assert model.test_nms_thresh == 0.7


def test_recipes_by_name():
    assert isinstance(build_model(yacs("gfl")).head.quality_predictor, NoQuality)
    without_dfl = build_model(yacs("gfl", "MODEL.GFL.BOX_REPRESENTATION", "general"))
    assert without_dfl.criterion.dist_loss is None


@pytest.mark.parametrize("key", ["QUALITY", "BOX_REPRESENTATION", "MATCHER"])
def test_unknown_names_list_the_valid_ones(key):
    with pytest.raises(ValueError, match=f"MODEL.GFL.{key} is 'best'; expected one of '"):
        build_model(yacs("gflv2", f"MODEL.GFL.{key}", "best"))


def test_picked_recipes_are_copies():
    part = recipes.pick(recipes.MATCHER, "atss", "key")
    part["matcher"].topk = 1
    assert recipes.MATCHER["atss"]["matcher"].topk == 9
