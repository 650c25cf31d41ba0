"""The zoo's networks against the official GFocalV2 code: names, shapes and features in float64.

zoo_names.npz lists the state dicts of the official configs' models (backbone, FPN and head).
zoo_features.npz has samples of C3 to C5 of their backbones, with seeded weights: mmdetection's
ResNet, ResNeXt and Res2Net with mmcv 1.2.7's DCN and DCNv2, whose compiled operator was replaced by
bilinear sampling written from the definition.
"""

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate

from gfocal import model_zoo
from gfocal.backbones import make_resnet_stages
from gfocal.weights import convert_mmdet_state_dict, expected_state_dict, to_mmdet_state_dict
from tests.helpers import official

# Of GFL; the other detectors are compared with mmdetection in tests/detectors.
CONFIGS = [n for n in model_zoo.list_configs() if "/gfl" in n and n.endswith(".py")]
# What the official code keeps and frozen batch norm does not (or only in some versions).
COUNTER = "num_batches_tracked"
LEVELS = {"C3": "res3", "C4": "res4", "C5": "res5"}


@pytest.fixture(scope="module")
def official_shapes():
    """{model: {official name: shape}}; R_50 stands for both of its schedules."""
    names = official.load("zoo_names")
    models = [key.removesuffix(":names") for key in names if key.endswith(":names")]
    return {m: official.named_shapes(names[f"{m}:names"], names[f"{m}:shapes"]) for m in models}


@pytest.fixture(scope="module")
def features():
    return official.load("zoo_features")


def shapes_of(state_dict):
    return {n: tuple(p.shape) for n, p in state_dict.items() if not n.endswith(COUNTER)}


@pytest.mark.parametrize("config", CONFIGS)
def test_names_and_shapes(config, official_shapes):
    """A state dict of ours has the official names and shapes once converted, and the reverse."""
    expected = official_shapes[config.split("/")[1].split("_FPN")[0]]
    ours = expected_state_dict(model_zoo.get_config(config).model)
    shapes = {n: s for n, s in expected.items() if not n.endswith(COUNTER)}
    assert shapes_of(to_mmdet_state_dict(ours)) == shapes

    theirs = {name: torch.empty(shape, device="meta") for name, shape in expected.items()}
    ours = {n: p for n, p in ours.items() if not n.startswith("anchor_generator.")}
    assert shapes_of(convert_mmdet_state_dict(theirs)) == shapes_of(ours)


def test_every_official_model_has_a_config(official_shapes):
    ours = {config.split("/")[1].split("_FPN")[0] for config in CONFIGS}
    assert ours == official_shapes.keys() - {"R_50_dcnv2"}


def check_features(bottom_up_cfg, model, official_shapes, features):
    names = {n: s for n, s in official_shapes[model].items() if n.startswith("backbone.")}
    weights = official.seeded_state_dict(names, int(features["seed"]))
    prefix = "backbone.bottom_up."
    weights = {n.removeprefix(prefix): p for n, p in convert_mmdet_state_dict(weights).items()}
    bottom_up = instantiate(bottom_up_cfg).double().eval()
    result = bottom_up.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys
    assert all(key.endswith(COUNTER) for key in result.missing_keys)
    with torch.no_grad():
        outs = bottom_up(official.zoo_image())
    for level, name in LEVELS.items():
        out = outs[name].numpy()
        assert out.shape == tuple(features[f"{model}:{level}_shape"])
        expected = features[f"{model}:{level}"]
        np.testing.assert_allclose(
            official.sample(out), expected, rtol=1e-9, atol=1e-9, err_msg=level
        )
        assert out.sum() == pytest.approx(float(features[f"{model}:{level}_sum"]), rel=1e-10)


@pytest.mark.parametrize(
    "model",
    ["gflv2_R_101_dcn", "gfl_X_101_32x4d", "gflv2_X_101_32x4d_dcn", "gflv2_R2_101_dcn"],
)
def test_features(model, official_shapes, features):
    cfg = model_zoo.get_config(f"COCO-Detection/{model}_FPN_ms_2x.py")
    check_features(cfg.model.backbone.bottom_up, model, official_shapes, features)


def test_features_of_modulated_deformable_stages(official_shapes, features):
    """DCNv2, which no published model has, in c3 to c5 of ResNet-50, two groups of offsets."""
    cfg = model_zoo.get_config("COCO-Detection/gfl_R_50_FPN_1x.py").model.backbone.bottom_up
    cfg.stages = L(make_resnet_stages)(
        depth=50,
        norm="FrozenBN",
        deform_on_per_stage=[False, True, True, True],
        deform_modulated=True,
        deform_num_groups=2,
    )
    check_features(cfg, "R_50_dcnv2", official_shapes, features)
