"""Parameters and FLOPs: against counts made otherwise."""

import pytest
import torch
from detectron2.config import instantiate
from fvcore.nn import FlopCountAnalysis

from gfocal import model_zoo
from gfocal.backbone import DeformConv2d
from tests import official
from tests.tools.loading import load_tool

R50 = "COCO-Detection/gfl_R_50_FPN_1x.py"


@pytest.fixture(scope="module")
def tool():
    return load_tool("analyze_model")


def test_parameters_are_the_official_ones(tool):
    """Summed over the official model's names: what batch norm counts is no parameter."""
    fixture = official.load("detector_v1_r50")
    shapes = [[int(n) for n in str(s).split(",") if n] for s in fixture["param_shapes"]]
    expected = sum(
        torch.Size(shape).numel()
        for name, shape in zip(fixture["param_names"], shapes)
        if not str(name).endswith(("running_mean", "running_var", "_tracked", "project"))
    )
    cfg = model_zoo.get_config(R50).model
    cfg.num_classes = int(fixture["num_classes"])
    with torch.device("meta"):
        assert tool.count_parameters(instantiate(cfg)) == expected


@pytest.mark.parametrize(("groups", "stride", "modulated"), [(1, 1, False), (4, 2, True)])
def test_deformable_convolutions_are_counted_as_convolutions(tool, groups, stride, modulated):
    """2 x 12 x 5 x 6 outputs (10 x 12 without the stride) of 8 / groups x 3 x 3 products."""
    conv = DeformConv2d(
        8, 12, kernel_size=3, stride=stride, padding=1, groups=groups, modulated=modulated
    )
    size = (5, 6) if stride == 2 else (10, 12)
    offsets = torch.zeros(2, 27 if modulated else 18, *size)
    analysis = FlopCountAnalysis(conv, (torch.zeros(2, 8, 10, 12), offsets))
    analysis.set_op_handle("torchvision::deform_conv2d", tool.deform_conv_flops)
    expected = 2 * 12 * size[0] * size[1] * (8 // groups) * 9
    assert analysis.by_operator()["deform_conv"] == expected


def test_flops_by_hand(tool):
    """Of the two towers on P3..P7 of 64 x 96 px: 4 convolutions each, and the outputs."""
    _, _, uncounted = tool.count(R50, (64, 90))  # padded to 96
    locations = sum((64 // s if s <= 64 else 1) * (96 // s if s <= 64 else 1) for s in (8, 16, 32))
    locations += 1 * 2 + 1 * 1  # P6 and P7, rounded up
    model = instantiate(model_zoo.get_config(R50).model).eval()
    with torch.no_grad():
        analysis = FlopCountAnalysis(tool.Network(model), torch.zeros(1, 3, 64, 96))
        by_module = analysis.unsupported_ops_warnings(False).by_module_and_operator()
    head = by_module["model.head"]
    assert head["conv"] == locations * 9 * 256 * (8 * 256 + 80 + 68)
    assert not {op for op in uncounted if "conv" in op or "mm" in op or "linear" in op}


def test_the_command(tool, tmp_path, capsys):
    tool.main(tool.parse_args([R50, model_zoo.get_config_file(R50), "--input-size", "64", "96"]))
    header, _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert header == "| config | parameters (M) | GFLOPs at 64 x 96 |"
    assert first == second and first.startswith("| gfl_R_50_FPN_1x | 32.44 | ")
    with pytest.raises(ValueError, match="no config 'nothing'"):
        tool.main(tool.parse_args(["nothing"]))
