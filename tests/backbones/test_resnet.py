"""The stages of a ResNe(X)t are Detectron2's; stages that there are none of."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BasicStem, ResNet, build_resnet_backbone

from gfocal.backbones import make_res2net_stages, make_resnet_stages


@pytest.mark.parametrize(("depth", "width"), [(18, None), (50, 64), (50, 4)])
def test_resnet_stages_are_detectron2s(depth, width):
    groups = 32 if width == 4 else 1
    cfg = get_cfg()
    cfg.MODEL.RESNETS.merge_from_list(
        ["DEPTH", depth, "NUM_GROUPS", groups, "WIDTH_PER_GROUP", width or 64]
        + ["STRIDE_IN_1X1", False, "OUT_FEATURES", ["res2", "res5"]]
    )
    if depth == 18:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    theirs = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    stages = make_resnet_stages(depth=depth, num_groups=groups, width_per_group=width or 64)
    ours = ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res2", "res5"], freeze_at=2)
    assert str(ours) == str(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 32, 64)
    for name, value in ours(x).items():
        assert torch.equal(value, theirs(x)[name])
    frozen, theirs_frozen = (
        {n for n, p in net.named_parameters() if not p.requires_grad} for net in (ours, theirs)
    )
    assert frozen == theirs_frozen


@pytest.mark.parametrize(
    ("make", "kwargs", "message"),
    [
        (make_resnet_stages, {"depth": 42}, r"depth is 42; expected one of \[50, 101, 152\]"),
        (make_res2net_stages, {"depth": 18}, "depth is 18; expected one of"),
        (make_resnet_stages, {"depth": 18, "num_groups": 32}, "ResNet-18 has no bottlenecks: got"),
        (make_res2net_stages, {"depth": 50, "scales": 1}, "scales is 1; expected at least 2"),
        (
            make_resnet_stages,
            {"depth": 50, "deform_on_per_stage": [True]},
            r"deform_on_per_stage is \[True\]; expected four values",
        ),
        (
            make_resnet_stages,
            {"depth": 34, "deform_on_per_stage": [False, False, False, True]},
            "ResNet-34 has no bottlenecks",
        ),
    ],
)
def test_stages_that_there_are_none_of(make, kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        make(**kwargs)
