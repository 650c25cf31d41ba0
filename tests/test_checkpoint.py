"""Weights of mmdetection's names."""

import pytest
import torch

from gfocal.checkpoint import convert_mmdet_state_dict

from . import official


def test_names_by_hand():
    names = {
        "backbone.conv1.weight": "backbone.bottom_up.stem.conv1.weight",
        "backbone.bn1.running_var": "backbone.bottom_up.stem.conv1.norm.running_var",
        "backbone.layer1.0.conv2.weight": "backbone.bottom_up.res2.0.conv2.weight",
        "backbone.layer4.2.bn3.bias": "backbone.bottom_up.res5.2.conv3.norm.bias",
        "backbone.layer2.0.downsample.0.weight": "backbone.bottom_up.res3.0.shortcut.weight",
        "backbone.layer2.0.downsample.1.weight": "backbone.bottom_up.res3.0.shortcut.norm.weight",
        "neck.lateral_convs.0.conv.weight": "backbone.fpn_lateral3.weight",
        "neck.fpn_convs.2.conv.bias": "backbone.fpn_output5.bias",
        "neck.fpn_convs.3.conv.bias": "backbone.top_block.p6.bias",
        "neck.fpn_convs.4.conv.weight": "backbone.top_block.p7.weight",
        "bbox_head.cls_convs.1.conv.weight": "head.cls_tower.1.weight",
        "bbox_head.reg_convs.3.gn.bias": "head.box_tower.3.norm.bias",
        "bbox_head.gfl_reg.weight": "head.box_logits.weight",
        "bbox_head.scales.4.scale": "head.scales.4",
    }
    converted = convert_mmdet_state_dict({name: torch.zeros(1) for name in names})
    assert list(converted) == list(names.values())


@pytest.mark.parametrize("kind", ["v1_r18", "v2_r50"])
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
    with pytest.raises(
        ValueError, match="2 keys .*: rpn_head.conv.weight, backbone.layer5.0.conv1"
    ):
        convert_mmdet_state_dict(
            {
                "rpn_head.conv.weight": torch.zeros(1),
                "backbone.conv1.weight": torch.zeros(1),
                "backbone.layer5.0.conv1.weight": torch.zeros(1),
            }
        )
