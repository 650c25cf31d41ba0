"""timm's networks as backbones: shapes, frozen stages, weights, a training that goes on."""

import sys

import pytest
import timm
import torch
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import FPN

from gfocal._installed import MissingPackageError
from gfocal.backbones import LinearP6P7, TimmBackbone
from tests.helpers.tiny import make_gfl, make_head, make_input

pytestmark = pytest.mark.usefixtures("one_thread")
# Maps at strides 8, 16 and 32; the last two are channels-last inside or have fixed sizes.
NETWORKS = {
    "resnet18": (128, 256, 512),
    "convnext_atto": (80, 160, 320),
    "mobilenetv3_small_100": (24, 48, 576),
    "swin_tiny_patch4_window7_224": (192, 384, 768),
}
OPTIONS = {"swin_tiny_patch4_window7_224": {"img_size": 64, "depths": (1, 1, 1, 1)}}


def make_backbone(name="resnet18", **kwargs):
    return TimmBackbone(name=name, options=OPTIONS.get(name), **kwargs)


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_the_networks(name):
    backbone = make_backbone(name, out_features=["res3", "res4", "res5"])
    maps = backbone(torch.randn(1, 3, 64, 64))
    shapes = backbone.output_shape()
    assert list(maps) == list(shapes) == ["res3", "res4", "res5"]
    for (level, x), channels, stride in zip(maps.items(), NETWORKS[name], (8, 16, 32)):
        assert x.shape == (1, channels, 64 // stride, 64 // stride)
        assert (shapes[level].channels, shapes[level].stride) == (channels, stride)
    assert backbone.size_divisibility == 32


def test_all_maps_by_default():
    assert [*make_backbone().output_shape()] == ["res1", "res2", "res3", "res4", "res5"]
    # Of the blocks of one stride it is the last.
    vit = TimmBackbone(name="vit_tiny_patch16_224", options={"img_size": 64})
    assert [*vit.output_shape()] == ["res4"]
    (output,) = vit(torch.zeros(1, 3, 64, 64)).values()
    assert torch.equal(output, vit.net(torch.zeros(1, 3, 64, 64))[-1])


@pytest.mark.parametrize(
    ("name", "freeze_at", "frozen"),
    [
        ("resnet18", 2, {"conv1", "bn1", "layer1"}),
        ("mobilenetv3_small_100", 1, {"conv_stem", "bn1"}),
        ("convnext_atto", 1, {"stem_0", "stem_1", "stages_0"}),
    ],
)
def test_frozen_stages(name, freeze_at, frozen):
    torch.manual_seed(0)
    backbone = make_backbone(name, freeze_at=freeze_at).train()
    fixed = {n.split(".")[0] for n, p in backbone.net.named_parameters() if not p.requires_grad}
    # Of frozen batch norms the weights are buffers.
    assert fixed <= frozen
    before = {n: x.clone() for n, x in backbone.net.state_dict().items()}
    sum(x.sum() for x in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    changed = {n for n, x in backbone.net.state_dict().items() if not torch.equal(x, before[n])}
    assert not {n.split(".")[0] for n in changed} & frozen
    trained = {n.split(".")[0] for n, p in backbone.net.named_parameters() if p.grad is not None}
    assert trained and not trained & frozen


def test_frozen_layers_keep_their_activations():
    torch.manual_seed(0)
    free = make_backbone("mobilenetv3_small_100").eval()
    frozen = make_backbone("mobilenetv3_small_100", freeze_at=5)
    missing = frozen.load_state_dict(free.state_dict(), strict=False)
    assert not missing.missing_keys
    x = torch.randn(1, 3, 64, 64)
    for a, b in zip(free(x).values(), frozen.eval()(x).values()):
        torch.testing.assert_close(a, b)


def test_weights_of_a_file(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("resnet18", num_classes=10)
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    backbone = make_backbone(weights=tmp_path / "resnet18.pth")
    expected = whole.state_dict()
    for name, x in backbone.net.state_dict().items():
        assert torch.equal(x, expected[name]), name
    with pytest.raises(FileNotFoundError, match="absent.pth: no such file with weights of resnet"):
        make_backbone(weights=tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "resnet17"}, "timm has no model 'resnet17'"),
        ({"out_features": ["res7"]}, r"out_features has \['res7'\]; resnet18 has the maps \['res1"),
        ({"freeze_at": 6}, "freeze_at is 6; expected 0 to 5 maps"),
        (
            {"options": {"checkpoint_path": "a"}},
            r"options has 'checkpoint_path'; expected weights=",
        ),
        ({"options": {"pretrained": True}}, r"options has 'pretrained'; expected pretrained=True"),
    ],
)
def test_mistakes(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**{"name": "resnet18", **kwargs})


def test_timm_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("gfocal.backbones.timm_backbone.is_installed", lambda name: False)
    with pytest.raises(MissingPackageError, match=r"needs timm.*pip install 'gfocal\[timm\]'"):
        make_backbone()


def make_detector(name):
    fpn = FPN(
        bottom_up=make_backbone(name, out_features=["res3", "res4", "res5"]),
        in_features=["res3", "res4", "res5"],
        out_channels=8,
        top_block=LinearP6P7(8, 8),
    )
    return make_gfl(backbone=fpn, head=make_head(), head_in_features=["p3", "p4"])


@pytest.mark.parametrize("name", NETWORKS)
def test_one_step_and_one_inference(name):
    model = make_detector(name).train()
    losses = model([make_input(64, 64, [[3.0, 2.0, 60.0, 58.0]])])
    sum(losses.values()).backward()
    assert all(x.isfinite() for x in losses.values())
    assert any(p.grad is not None and p.grad.any() for p in model.backbone.bottom_up.parameters())
    with torch.no_grad():
        (found,) = model.eval()([make_input(64, 64)])
    assert found["instances"].image_size == (64, 64)


def test_a_lazy_call():
    call = L(TimmBackbone)(name="resnet18", out_features=["res3"])
    assert call.name == "resnet18"
