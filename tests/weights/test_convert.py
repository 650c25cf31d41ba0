"""Weights of mmdetection's names, both directions; names of a classifier."""

import logging

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate

from gfocal import model_zoo
from gfocal.weights import (
    check_state_dict,
    convert_imagenet_state_dict,
    convert_mmdet_checkpoint,
    convert_mmdet_state_dict,
    expected_state_dict,
    to_mmdet_state_dict,
)
from gfocal.weights.fit import is_optional
from tests.helpers import official

ZOO = [name for name in model_zoo.list_configs() if name.endswith(".py")]
RESNET = {
    "backbone.conv1.weight": "backbone.bottom_up.stem.conv1.weight",
    "backbone.bn1.running_var": "backbone.bottom_up.stem.conv1.norm.running_var",
    "backbone.layer1.0.conv2.weight": "backbone.bottom_up.res2.0.conv2.weight",
    "backbone.layer4.2.bn3.bias": "backbone.bottom_up.res5.2.conv3.norm.bias",
    "backbone.layer2.0.downsample.0.weight": "backbone.bottom_up.res3.0.shortcut.weight",
    "backbone.layer2.0.downsample.1.weight": "backbone.bottom_up.res3.0.shortcut.norm.weight",
    "backbone.layer3.22.conv2.conv_offset.bias": "backbone.bottom_up.res4.22.conv2_offset.bias",
    "neck.lateral_convs.0.conv.weight": "backbone.fpn_lateral3.weight",
    "neck.fpn_convs.2.conv.bias": "backbone.fpn_output5.bias",
    "neck.fpn_convs.3.conv.bias": "backbone.top_block.p6.bias",
    "neck.fpn_convs.4.conv.weight": "backbone.top_block.p7.weight",
    "bbox_head.cls_convs.1.conv.weight": "head.cls_tower.1.weight",
    "bbox_head.reg_convs.3.gn.bias": "head.box_tower.3.norm.bias",
    "bbox_head.gfl_reg.bias": "head.box_logits.bias",
    "bbox_head.scales.4.scale": "head.scales.4",
}
RES2NET = {
    "backbone.stem.0.weight": "backbone.bottom_up.stem.conv1.weight",
    "backbone.stem.4.running_mean": "backbone.bottom_up.stem.conv2.norm.running_mean",
    "backbone.stem.6.weight": "backbone.bottom_up.stem.conv3.weight",
    "backbone.layer1.0.conv1.weight": "backbone.bottom_up.res2.0.conv1.weight",
    "backbone.layer1.0.bn3.weight": "backbone.bottom_up.res2.0.conv3.norm.weight",
    "backbone.layer1.0.convs.2.weight": "backbone.bottom_up.res2.0.conv2.2.weight",
    "backbone.layer1.0.bns.0.bias": "backbone.bottom_up.res2.0.conv2.0.norm.bias",
    "backbone.layer4.1.convs.1.conv_offset.bias": "backbone.bottom_up.res5.1.conv2_offset.1.bias",
    "backbone.layer2.0.downsample.1.weight": "backbone.bottom_up.res3.0.shortcut.weight",
    "backbone.layer2.0.downsample.2.bias": "backbone.bottom_up.res3.0.shortcut.norm.bias",
}


@pytest.mark.parametrize("names", [RESNET, RES2NET], ids=["resnet", "res2net"])
def test_names_by_hand(names):
    converted = convert_mmdet_state_dict({name: torch.zeros(1) for name in names})
    assert list(converted) == list(names.values())
    back = to_mmdet_state_dict({name: torch.zeros(1) for name in names.values()})
    assert list(back) == list(names)


def test_the_old_name_of_an_offset():
    """mmdetection's before DCN came from mmcv."""
    (ours,) = convert_mmdet_state_dict({"backbone.layer2.0.conv2_offset.weight": torch.zeros(1)})
    assert ours == "backbone.bottom_up.res3.0.conv2_offset.weight"


@pytest.mark.parametrize("kind", ["v1_r18", "v2_r18", "v1_r50", "v2_r50"])
def test_every_weight_finds_its_place(kind):
    fixture = official.load(f"detector_{kind}")
    state_dict = official.state_dict(fixture)
    converted = convert_mmdet_state_dict(state_dict)
    dropped = [k for k in state_dict if k.endswith(("num_batches_tracked", "integral.project"))]
    assert len(converted) == len(state_dict) - len(dropped)
    model = official.detector(fixture)
    own = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert own.keys() == converted.keys()
    assert all(torch.equal(own[k], converted[k]) for k in own)
    # and back: all but the counter, and the row that has no counterpart here
    back = to_mmdet_state_dict(converted)
    names = {k for k in state_dict if not k.endswith("num_batches_tracked")}
    assert back.keys() == names
    for name in names:
        assert back[name].shape == state_dict[name].shape
        rows = slice(0, -1) if "gfl_cls" in name and "v2" in kind else ...
        assert torch.equal(back[name][rows], state_dict[name][rows]), name
    if "v2" in kind:  # never above the score threshold of 0.05
        assert not back["bbox_head.gfl_cls.weight"][-1].any()
        assert back["bbox_head.gfl_cls.bias"][-1].sigmoid() == pytest.approx(0.01)


@pytest.mark.parametrize("name", ZOO)
def test_round_trip_of_the_zoo(name):
    cfg = model_zoo.get_config(name).model
    cfg.num_classes = 5
    generator = torch.Generator().manual_seed(0)
    ours = {
        key: torch.rand(value.shape, generator=generator)
        for key, value in expected_state_dict(cfg).items()
        if not is_optional(key)  # counters of batch norm
    }
    theirs = to_mmdet_state_dict(ours)
    assert not set(theirs) & set(ours)
    back = convert_mmdet_state_dict(theirs)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[key], ours[key]) for key in ours)


def test_class_rows():
    v1 = {"bbox_head.gfl_cls.bias": torch.arange(6.0)}
    v2 = {**v1, "bbox_head.reg_conf.0.weight": torch.zeros(64, 20, 1, 1)}
    assert len(convert_mmdet_state_dict(v1)["head.cls_logits.bias"]) == 6
    converted = convert_mmdet_state_dict(v2)
    assert converted["head.cls_logits.bias"].tolist() == [0, 1, 2, 3, 4]
    assert converted["head.quality_predictor.fc1.weight"].shape == (64, 20)
    assert len(convert_mmdet_state_dict(v2, num_classes=6)["head.cls_logits.bias"]) == 6
    with pytest.raises(ValueError, match="6 class rows; expected num_classes 80"):
        convert_mmdet_state_dict(v1, num_classes=80)
    with pytest.raises(ValueError, match="6 class rows; expected num_classes 5$"):
        convert_mmdet_state_dict(v1, num_classes=5)  # v1 has no row to spare
    with pytest.raises(ValueError, match="6 class rows; expected num_classes 4 or one more"):
        convert_mmdet_state_dict(v2, num_classes=4)


def test_unmapped_keys_are_listed():
    state_dict = {
        "rpn_head.conv.weight": torch.zeros(1),
        "backbone.conv1.weight": torch.zeros(1),
        "backbone.layer5.0.conv1.weight": torch.zeros(1),
    }
    with pytest.raises(
        ValueError, match="2 keys .*: rpn_head.conv.weight, backbone.layer5.0.conv1"
    ):
        convert_mmdet_state_dict(state_dict)
    with pytest.raises(ValueError, match=r"1 keys are .*: roi_heads\.x$"):
        to_mmdet_state_dict({"roi_heads.x": torch.zeros(1)})


def test_two_spellings_of_one_key():
    names = ("backbone.layer2.0.conv2_offset.bias", "backbone.layer2.0.conv2.conv_offset.bias")
    with pytest.raises(ValueError, match=r"several keys .*\.res3\.0\.conv2_offset\.bias"):
        convert_mmdet_state_dict({name: torch.zeros(1) for name in names})


def test_weights_of_no_use_are_named():
    """Not a crash, and not reshaped into what fits."""
    name = "bbox_head.reg_conf.0.weight"
    (kept,) = convert_mmdet_state_dict({name: torch.zeros(64, 5, 2, 2)}).values()
    assert kept.shape == (64, 5, 2, 2)
    (kept,) = convert_mmdet_state_dict({name: torch.zeros(64)}).values()
    assert kept.shape == (64,)
    with pytest.raises(ValueError, match=r"head\.cls_logits\.bias is a single number"):
        convert_mmdet_state_dict({"bbox_head.gfl_cls.bias": torch.tensor(1.0)})
    (back,) = to_mmdet_state_dict(
        {"head.quality_predictor.fc1.weight": torch.zeros(64, 20)}
    ).values()
    assert back.shape == (64, 20, 1, 1)


def test_a_converted_checkpoint_is_the_official_detector(tmp_path, caplog):
    """From file to detections through Detectron2's own checkpointer, which has nothing to say."""
    fixture = official.load("detector_v2_r18")
    torch.save({"state_dict": official.state_dict(fixture)}, tmp_path / "theirs.pth")
    cfg = model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.py").model
    cfg.backbone.bottom_up.stages.depth = 18
    cfg.num_classes = int(fixture["num_classes"])
    cfg.test_topk_candidates = int(fixture["max_candidates_per_level"])
    state_dict, configs = convert_mmdet_checkpoint(tmp_path / "theirs.pth", model_cfg=cfg)
    assert configs == []
    torch.save({"model": state_dict}, tmp_path / "ours.pth")

    model = instantiate(cfg).double().eval()
    with caplog.at_level(logging.WARNING):
        DetectionCheckpointer(model).load(str(tmp_path / "ours.pth"))
    assert caplog.records == []
    for i, image in enumerate(official.detector_inputs()):
        with torch.no_grad():
            instances = model([image])[0]["instances"]
        scores = torch.from_numpy(fixture[f"det_scores_{i}"])
        boxes = torch.from_numpy(fixture[f"det_boxes_{i}"])
        torch.testing.assert_close(instances.scores, scores, rtol=0, atol=1e-6, check_dtype=False)
        torch.testing.assert_close(
            instances.pred_boxes.tensor, boxes, rtol=0, atol=1e-4, check_dtype=False
        )


def test_the_anchors_are_no_weights():
    model = official.detector(official.load("detector_v1_r18"))
    assert not [key for key in model.state_dict() if "anchor" in key]
    assert len(list(model.anchor_generator.buffers())) == 5


def test_a_res2net_from_its_classifier():
    """The names that the ImageNet model of mmdetection has: the detector's without "backbone."."""
    cfg = model_zoo.get_config("COCO-Detection/gflv2_R2_101_dcn_FPN_ms_2x.py").model
    expected = {
        key: value
        for key, value in expected_state_dict(cfg).items()
        if key.startswith("backbone.bottom_up.") and "conv2_offset" not in key
    }
    classifier = {
        key.removeprefix("backbone."): value for key, value in to_mmdet_state_dict(expected).items()
    }
    assert {"stem.0.weight", "layer1.0.convs.0.weight", "layer1.0.downsample.1.weight"} < set(
        classifier
    )
    classifier.update({"fc.weight": torch.zeros(1), "bn1.num_batches_tracked": torch.zeros(1)})
    converted = convert_imagenet_state_dict(classifier)
    assert converted.keys() == expected.keys()
    assert check_state_dict(converted, expected) == {}
