"""Parameters and FLOPs: against numbers derived by hand and the official code's shapes."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from gfocal import model_zoo
from gfocal.backbone import DeformConv2d
from tests import official
from tests.tiny import make_gfl
from tests.tools.loading import load_tool

R50 = "COCO-Detection/gfl_R_50_FPN_1x"


@pytest.fixture(scope="module")
def tool():
    return load_tool("analyze_model")


@pytest.fixture(scope="module")
def r50():
    """GFLV1 with R-50 and 5 classes."""
    cfg = model_zoo.get_config(f"{R50}.py").model
    cfg.num_classes = 5
    return instantiate(cfg)


def test_by_hand(tool):
    """30 x 41 px is padded to 32 x 48: 4 * 6 locations of stride 8 and 2 * 3 of stride 16.

    backbone: a 1x1 convolution 3 -> 8 a level: 24 multiply-adds a location, 32 parameters.
    towers: 3x3, 8 -> 8, with a bias: 576 and 584; twice.
    cls_logits: 3x3, 8 -> 3: 216 and 219; box_logits: 3x3, 8 -> 68: 4896 and 4964.
    DGQP: 20 -> 64 -> 1: 1344 and 1409. The two scales are 2 parameters.
    """
    model = make_gfl(num_classes=3)
    assert tool.count_parameters(model) == 2 * 32 + 2 * 584 + 219 + 4964 + 1409 + 2
    flops, uncounted = tool.count_flops(model, (30, 41))
    assert flops == 30 * (24 + 2 * 576 + 216 + 4896 + 1344)
    assert not uncounted


@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_convolution(tool, modulated):
    """Costs what the convolution of the same shape costs: 17 x 13 of stride 2 gives 9 x 7, and
    each of 12 output channels sees 8 / 4 input channels at 9 samples."""
    shape = {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 4, "bias": False}

    class Deformed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = DeformConv2d(8, 12, modulated=modulated, **shape)

        def forward(self, x, offsets):
            return self.conv(x, offsets)

    images = torch.zeros(2, 8, 17, 13)
    offsets = torch.zeros(2, 27 if modulated else 18, 9, 7)
    deformed = tool.FlopCountAnalysis(Deformed(), (images, offsets))
    deformed.set_op_handle("torchvision::deform_conv2d", tool.deform_conv2d_flops)
    plain = tool.FlopCountAnalysis(nn.Conv2d(8, 12, **shape), images)
    assert deformed.by_operator()["deform_conv"] == 2 * 9 * 7 * 12 * 2 * 9 == plain.total()


def test_deformable_models(tool, r50):
    """Their 3x3 convolutions cost what the plain ones do, and their offsets come on top: 3x3,
    512 -> 18, in the three blocks of res5 (2 x 3 locations)."""
    cfg = model_zoo.get_config(f"{R50}.py").model
    cfg.num_classes = 5
    cfg.backbone.bottom_up.stages.deform_on_per_stage = [False, False, False, True]
    deformed = instantiate(cfg)
    parameters = [tool.count_parameters(model) for model in (r50, deformed)]
    assert parameters[1] - parameters[0] == 3 * (9 * 512 + 1) * 18
    flops, uncounted = zip(*(tool.count_flops(model, (64, 96)) for model in (r50, deformed)))
    assert flops[1] - flops[0] == 3 * 6 * 9 * 512 * 18
    assert not any(uncounted)


def test_parameters_are_the_official_ones(tool, r50):
    """Without the statistics of batch norm and the constant bins."""
    fixture = official.load("detector_v1_r50")
    shapes = official.named_shapes(fixture["param_names"], fixture["param_shapes"])
    constants = ("running_mean", "running_var", "num_batches_tracked", "integral.project")
    expected = sum(int(np.prod(s)) for name, s in shapes.items() if not name.endswith(constants))
    assert tool.count_parameters(r50) == expected


def test_what_is_not_counted_is_named(tool):
    class Cumulative(nn.Module):
        def forward(self, box_features, box_logits):
            return box_logits.cumsum(dim=-1)[..., 0, :1]

    _, uncounted = tool.count_flops(make_gfl(quality_predictor=Cumulative()), (32, 32))
    assert dict(uncounted) == {"aten::cumsum": 2}  # once a level


def test_table_of_both_kinds_of_config(tool, capsys):
    path = model_zoo.get_config_file(f"{R50}.yaml")
    tool.main(tool.parse_args([f"{R50}.py", path, "--input-size", "64", "64"]))
    head, rule, lazy, yacs = capsys.readouterr().out.splitlines()
    assert head == "| config | parameters (M) | GFLOPs at 64 x 64 |" and rule == "|---|---|---|"
    assert lazy.startswith(f"| {R50}.py | 32.44 | ")
    assert yacs == lazy.replace(f"{R50}.py", path)


def test_without_a_config_it_is_the_zoo(tool):
    args = tool.parse_args([])
    assert len(args.configs) == 12 and args.configs[0].endswith(".py")
    assert tuple(args.input_size) == (800, 1333)


def test_errors(tool, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"did you mean .*gfl_R_50_FPN_1x\.py"):
        tool.build("COCO-Detection/gfl_R_50_FPN_1.py")
    other = tmp_path / "other.yaml"
    other.write_text('MODEL:\n  META_ARCHITECTURE: "GeneralizedRCNN"\n')
    with pytest.raises(TypeError, match="is a GeneralizedRCNN; expected GFL"):
        tool.build(str(other))
    other.write_text('MODEL:\n  META_ARCHITECTURE: "GFLX"\n')
    with pytest.raises(ValueError, match="META_ARCHITECTURE is 'GFLX'"):
        tool.build(str(other))
    with pytest.raises(SystemExit):
        tool.parse_args(["--input-size", "0", "10"])
    assert "--input-size is [0, 10]; expected at least 1 pixel" in capsys.readouterr().err
