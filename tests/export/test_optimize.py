"""Optimized for inference: the same detections."""

import copy
import io
import pickle

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import Conv2d
from torch.nn.utils import parametrizations

import gfocal
from gfocal import model_zoo
from gfocal.export import fast_dtype
from gfocal.modeling.representations import GeneralDistribution
from tests.helpers.tiny import make_gfl, make_head, make_input


@pytest.fixture(scope="module", params=["FrozenBN", "BN"])
def trained(request):
    """A small detector on a deformable ResNet whose norms do something, and an image."""
    torch.manual_seed(0)
    cfg = model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.py").model
    cfg.num_classes = 3
    cfg.backbone.out_channels = 32
    cfg.head.conv_dims = [32]
    cfg.test_score_thresh = 0.0
    cfg.backbone.bottom_up.stem.norm = request.param
    cfg.backbone.bottom_up.stages.update(
        norm=request.param, deform_on_per_stage=[False, False, False, True]
    )
    model = instantiate(cfg).eval()
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.3, 0.6)
            module.bias.data.normal_(0, 0.1)
    # scores that differ from location to location
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.2)
    torch.nn.init.normal_(model.head.box_logits.weight, std=0.2)
    return model, make_input(96, 130)


def detect(model, image):
    with torch.no_grad():
        return model([image])[0]["instances"]


def dense(model, image):
    with torch.no_grad():
        return model.forward_dense([image])[2].tensors


@pytest.mark.parametrize("channels_last", [False, True])
def test_float32_gives_the_same_detections(trained, channels_last):
    model, image = trained
    expected = detect(model, image)
    fast = gfocal.optimize_for_inference(copy.deepcopy(model), channels_last=channels_last)
    assert not [m for m in fast.modules() if hasattr(m, "running_var")]
    assert not fast.training
    strides = fast.backbone.bottom_up.res3[0].conv2.weight.stride()
    assert (strides[1] == 1) == channels_last
    result = detect(fast, image)
    assert len(result) == len(expected) > 50
    torch.testing.assert_close(result.scores, expected.scores, rtol=0, atol=1e-4)
    for a, b in zip(dense(fast, image), dense(model, image)):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_bfloat16_is_close(trained):
    model, image = trained
    fast = gfocal.optimize_for_inference(copy.deepcopy(model), dtype=torch.bfloat16)
    assert {p.dtype for p in fast.backbone.parameters()} == {torch.bfloat16}
    assert fast.head.box_representation.bins.dtype == torch.float32
    for a, b in zip(dense(fast, image), dense(model, image)):
        assert a.dtype == torch.float32
        assert (a - b).abs().mean() < 0.03 * b.abs().mean()
    result = detect(fast, image)
    assert result.scores.dtype == result.pred_boxes.tensor.dtype == torch.float32


def test_compiled(trained, monkeypatch):
    """The graph is what torch.compile is asked for; the code that it writes is PyTorch's affair."""
    model, image = trained
    expected = detect(gfocal.optimize_for_inference(copy.deepcopy(model)), image)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kwargs: compiler(f, backend=backend))
    compiled = gfocal.optimize_for_inference(copy.deepcopy(model), compile=True)
    result = detect(compiled, image)
    assert len(graphs) == 2  # backbone and head, each in one piece
    torch.testing.assert_close(result.scores, expected.scores)
    torch.testing.assert_close(result.pred_boxes.tensor, expected.pred_boxes.tensor)

    # It is a module as any other, before and after it has run.
    assert compiled.state_dict().keys() == gfocal.optimize_for_inference(model).state_dict().keys()
    file = io.BytesIO()
    torch.save(compiled, file)
    file.seek(0)
    copies = [copy.deepcopy(compiled), copy.copy(compiled)]
    copies += [pickle.loads(pickle.dumps(compiled)), torch.load(file, weights_only=False)]
    for other in copies:
        torch.testing.assert_close(detect(other, image).scores, expected.scores)
    with torch.no_grad():  # a copy has weights of its own, and runs them
        copies[0].head.cls_logits.weight.zero_()
        copies[0].head.cls_logits.bias.fill_(9.0)
    assert (dense(copies[0], image)[0] == 9).all()
    assert not (dense(compiled, image)[0] == 9).any()
    compiled.load_state_dict(copies[0].state_dict())
    assert (dense(compiled, image)[0] == 9).all()


def test_compilation_by_an_old_pytorch_is_refused(monkeypatch):
    monkeypatch.delattr(torch.nn.Module, "compile")
    model = make_gfl().train()
    with pytest.raises(ValueError, match="compile=True is for PyTorch 2.2 and later; this is"):
        gfocal.optimize_for_inference(model, compile=True)
    assert model.training


def test_folding_twice_changes_nothing(trained):
    model, image = trained
    once = gfocal.optimize_for_inference(copy.deepcopy(model))
    expected = detect(once, image)
    twice = gfocal.optimize_for_inference(once)
    assert torch.equal(detect(twice, image).scores, expected.scores)


def test_group_norm_and_plain_convolutions_stay():
    model = make_gfl(test_score_thresh=0.0)
    image = make_input(64, 64)
    before = detect(model.eval(), image)
    after = detect(gfocal.optimize_for_inference(model), image)
    torch.testing.assert_close(after.scores, before.scores)


def test_norms_without_weights_stay():
    model = make_gfl(test_score_thresh=0.0)
    for options in ({"affine": False}, {"track_running_stats": False}):
        convolution = Conv2d(3, 3, 1, norm=torch.nn.BatchNorm2d(3, **options))
        model.backbone.extra = convolution
        gfocal.optimize_for_inference(model)
        assert convolution.norm is not None
    synchronised = Conv2d(3, 3, 1, norm=torch.nn.SyncBatchNorm(3))
    model.backbone.extra = synchronised
    gfocal.optimize_for_inference(model)
    assert synchronised.norm is None


def test_a_detector_offers_to_be_optimized():
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Conv2d(3, 3, 1, norm=torch.nn.BatchNorm2d(3))
            self.last = torch.nn.Linear(3, 3)

    class Offering(Plain):
        def networks(self):
            return (self.net,)

        def cast_networks(self, dtype):
            self.net.to(dtype)

    with pytest.raises(TypeError, match="got a Plain; .*methods networks and cast_networks"):
        gfocal.optimize_for_inference(Plain())
    fast = gfocal.optimize_for_inference(Offering(), dtype=torch.float64)
    assert fast.net.norm is None and not fast.training
    assert fast.net.weight.dtype == torch.float64
    assert fast.last.weight.dtype == torch.float32


def test_fast_dtype(monkeypatch):
    assert fast_dtype("cuda") == torch.float16
    assert fast_dtype(torch.device("cpu")) in (torch.bfloat16, None)
    for flags, expected in (("avx2", None), ("avx512_bf16", torch.bfloat16)):
        monkeypatch.setattr(
            "builtins.open", lambda *args, flags=flags: __import__("io").StringIO(flags)
        )
        assert fast_dtype("cpu") == expected


class LowRank(torch.nn.Module):
    """A linear layer that a tool has wrapped."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = torch.nn.Linear(base.in_features, 2, bias=False)
        self.up = torch.nn.Linear(2, base.out_features, bias=False)
        torch.nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def low_rank(model):
    predictor = model.head.quality_predictor
    predictor.fc1, predictor.fc2 = LowRank(predictor.fc1), LowRank(predictor.fc2)
    return model


def weight_norm(model):
    for module in list(model.modules()):
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            parametrizations.weight_norm(module)
    return model


TOOLS = {
    "quantized": torch.ao.quantization.quantize_dynamic,
    "quantized to float16": lambda m: torch.ao.quantization.quantize_dynamic(
        m, {torch.nn.Linear}, dtype=torch.float16
    ),
    "low rank": low_rank,
    "weight norm": weight_norm,
    "bfloat16": lambda m: m.bfloat16(),
}


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS.keys())
def test_layers_that_a_tool_replaced(tool):
    """PyTorch's dynamic quantization and others; then optimized."""
    model = make_gfl(test_score_thresh=0.0).eval()
    image = make_input(64, 96)
    expected = dense(model, image)
    changed = tool(copy.deepcopy(model))
    for fast in (changed, gfocal.optimize_for_inference(changed, dtype=torch.bfloat16)):
        for a, b in zip(dense(fast, image), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0.05, atol=0.02)


def test_weights_that_are_made_anew_are_not_folded():
    model = make_gfl()
    convolution = Conv2d(3, 3, 1, norm=torch.nn.BatchNorm2d(3).eval()).eval()
    model.backbone.extra = parametrizations.spectral_norm(convolution)
    image = torch.rand(1, 3, 4, 4)
    with torch.no_grad():
        before = convolution(image)
        gfocal.optimize_for_inference(model)
        torch.testing.assert_close(convolution(image), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bins_are_not_rounded(dtype):
    """0.3 strides is 0.30078 in bfloat16: each box would be moved."""
    head = make_head(box_representation=GeneralDistribution(bin_width=0.3))
    bins = head.box_representation.bins.clone()
    model = gfocal.optimize_for_inference(make_gfl(head=head), dtype=dtype)
    assert model.head.cls_logits.weight.dtype == dtype
    assert torch.equal(model.head.box_representation.bins, bins)
