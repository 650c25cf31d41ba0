"""Parameters and FLOPs: against numbers derived by hand and the official code's shapes."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from fvcore.nn import FlopCountAnalysis
from torch import nn

from gfocal import model_zoo
from gfocal.backbones import DeformConv2d
from gfocal.inspect.complexity import count_flops, count_parameters, deform_conv2d_flops
from tests.helpers import official
from tests.helpers.tiny import make_gfl

R50 = "COCO-Detection/gfl_R_50_FPN_1x"


@pytest.fixture(scope="module")
def r50():
    """GFLV1 with R-50 and 5 classes."""
    cfg = model_zoo.get_config(f"{R50}.py").model
    cfg.num_classes = 5
    return instantiate(cfg)


def test_by_hand():
    """30 x 41 px is padded to 32 x 48: 4 * 6 locations of stride 8 and 2 * 3 of stride 16.

    backbone: a 1x1 convolution 3 -> 8 a level: 24 multiply-adds a location, 32 parameters.
    towers: 3x3, 8 -> 8, with a bias: 576 and 584; twice.
    cls_logits: 3x3, 8 -> 3: 216 and 219; box_logits: 3x3, 8 -> 68: 4896 and 4964.
    DGQP: 20 -> 64 -> 1: 1344 and 1409. The two scales are 2 parameters.
    """
    model = make_gfl(num_classes=3)
    assert count_parameters(model) == 2 * 32 + 2 * 584 + 219 + 4964 + 1409 + 2
    flops, uncounted = count_flops(model, (30, 41))
    assert flops == 30 * (24 + 2 * 576 + 216 + 4896 + 1344)
    assert not uncounted


@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_convolution(modulated):
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
    deformed = FlopCountAnalysis(Deformed(), (images, offsets))
    deformed.set_op_handle("torchvision::deform_conv2d", deform_conv2d_flops)
    plain = FlopCountAnalysis(nn.Conv2d(8, 12, **shape), images)
    assert deformed.by_operator()["deform_conv"] == 2 * 9 * 7 * 12 * 2 * 9 == plain.total()


def test_deformable_models(r50):
    """Their 3x3 convolutions cost what the plain ones do, and their offsets come on top: 3x3,
    512 -> 18, in the three blocks of res5 (2 x 3 locations)."""
    cfg = model_zoo.get_config(f"{R50}.py").model
    cfg.num_classes = 5
    cfg.backbone.bottom_up.stages.deform_on_per_stage = [False, False, False, True]
    deformed = instantiate(cfg)
    parameters = [count_parameters(model) for model in (r50, deformed)]
    assert parameters[1] - parameters[0] == 3 * (9 * 512 + 1) * 18
    flops, uncounted = zip(*(count_flops(model, (64, 96)) for model in (r50, deformed)))
    assert flops[1] - flops[0] == 3 * 6 * 9 * 512 * 18
    assert not any(uncounted)


def test_parameters_are_the_official_ones(r50):
    """Without the statistics of batch norm and the constant bins."""
    fixture = official.load("detector_v1_r50")
    shapes = official.named_shapes(fixture["param_names"], fixture["param_shapes"])
    constants = ("running_mean", "running_var", "num_batches_tracked", "integral.project")
    expected = sum(int(np.prod(s)) for name, s in shapes.items() if not name.endswith(constants))
    assert count_parameters(r50) == expected


def test_what_is_not_counted_is_named():
    class Cumulative(nn.Module):
        def forward(self, box_features, box_logits):
            return box_logits.cumsum(dim=-1)[..., 0, :1]

    _, uncounted = count_flops(make_gfl(quality_predictor=Cumulative()), (32, 32))
    assert dict(uncounted) == {"aten::cumsum": 2}  # once a level
