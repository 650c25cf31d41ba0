import pytest
import torch
import torchvision
from detectron2.layers import ShapeSpec

from gfocal.backbones.vgg import SSD_LEVELS, VGG16, L2Norm, SSDPyramid
from gfocal.config import model_zoo


def make_pyramid(size, **kwargs):
    return SSDPyramid(bottom_up=VGG16(width=2, **kwargs), **SSD_LEVELS[size]._asdict())


@pytest.mark.parametrize(
    ("size", "sides"), [(512, [64, 32, 16, 8, 4, 2, 1]), (300, [38, 19, 10, 5, 3, 1])]
)
def test_maps_of_the_published_sizes(size, sides):
    pyramid = make_pyramid(size)
    maps = pyramid(torch.zeros(1, 3, size, size))
    assert [tuple(x.shape[-2:]) for x in maps.values()] == [(side, side) for side in sides]
    shapes = pyramid.output_shape()
    assert list(shapes) == list(maps) == [f"p{level}" for level in range(3, 3 + len(sides))]
    assert [x.stride for x in shapes.values()] == list(SSD_LEVELS[size].strides)
    assert [x.channels for x in shapes.values()] == [x.shape[1] for x in maps.values()]


def test_frozen_blocks_stay_as_they_are():
    torch.manual_seed(0)
    backbone = VGG16(width=2, norm="BN", freeze_at=2).train()
    before = {name: x.clone() for name, x in backbone.state_dict().items()}
    sum(x.sum() for x in backbone(9 * torch.randn(2, 3, 64, 64)).values()).backward()
    after = backbone.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert "conv3_1.norm.running_mean" in changed
    assert not any(name.startswith(("conv1_", "conv2_")) for name in changed)
    trained = {name.split(".")[0] for name, x in backbone.named_parameters() if x.grad is not None}
    assert trained == {f"conv{b}_{i}" for b in (3, 4, 5) for i in (1, 2, 3)} | {"conv6", "conv7"}


def test_channels_of_vgg16():
    shapes = VGG16().output_shape()
    assert shapes == {
        "conv4_3": ShapeSpec(channels=512, stride=8),
        "conv7": ShapeSpec(channels=1024, stride=16),
    }


def test_the_convolutions_are_those_of_vgg16():
    """torchvision's VGG-16 of the same width, with the same numbers, answers the same at conv4_3.
    On sides that are multiples of 8 it does not matter how poolings round."""
    ours = VGG16(width=4).double()
    layers = torchvision.models.vgg.make_layers(
        [4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32], batch_norm=False
    ).double()
    names = [f"conv{b}_{i}" for b, n in ((1, 2), (2, 2), (3, 3), (4, 3)) for i in range(1, n + 1)]
    theirs = [x for x in layers if isinstance(x, torch.nn.Conv2d)]
    for name, conv in zip(names, theirs, strict=True):
        conv.load_state_dict(getattr(ours, name).state_dict())
    x = torch.randn(1, 3, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(ours(x)["conv4_3"], layers(x))


def test_odd_sides_round_up():
    assert VGG16(width=1)(torch.zeros(1, 3, 75, 33))["conv4_3"].shape[-2:] == (10, 5)


def test_l2_norm_by_hand():
    norm = L2Norm(2, scale=20.0)
    x = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(norm(x).flatten(), torch.tensor([12.0, 16.0]))  # 20 * (3, 4) / 5
    assert norm(x.half()).dtype == torch.float16
    large = torch.full((1, 2, 1, 1), 300.0, dtype=torch.float16)  # its square is inf in float16
    torch.testing.assert_close(
        norm(large).flatten().float(), torch.full((2,), 200**0.5), atol=0.01, rtol=0
    )


def test_l2_norm_of_nothing_has_a_gradient():
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    L2Norm(4)(x).sum().backward()
    assert x.grad.isfinite().all()


def test_frozen_blocks():
    network = VGG16(width=2, freeze_at=2)
    frozen = {name.split(".")[0] for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1_1", "conv1_2", "conv2_1", "conv2_2"}


def test_norm_of_every_convolution():
    names = [name for name, _ in VGG16(width=2, norm="BN").named_parameters()]
    assert sum(name.endswith("norm.weight") for name in names) == 15
    assert not any(name.endswith("1.bias") for name in names)


def test_images_that_are_too_small():
    with pytest.raises(ValueError, match=r"images of \(250, 200\) px.* level 7 of 7"):
        make_pyramid(512)(torch.zeros(1, 3, 250, 200))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"extra_levels": [(8, 3, 2)], "strides": [8, 16, 32]}, r"extra_levels has \(8, 3, 2\)"),
        ({"extra_levels": [(8, 3, 2, 1)], "strides": [8, 16]}, "expected 3: of conv4_3"),
        ({"extra_levels": [], "strides": [16, 32]}, "that of p3 is 16; expected 8, the product"),
        ({"extra_levels": [(8, 3, 2, 1)], "strides": [8, 16, 31]}, "of p5 is 31; expected 32"),
        (
            {"extra_levels": [(8, 3, 1, 0)], "strides": [8, 16, 15]},
            "p5 is 15; expected at least 16",
        ),
    ],
)
def test_wrong_levels(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SSDPyramid(bottom_up=VGG16(width=2), **kwargs)


@pytest.mark.parametrize("kwargs", [{"freeze_at": 6}, {"width": 0}])
def test_wrong_networks(kwargs):
    with pytest.raises(ValueError, match="VGG16 got freeze_at"):
        VGG16(**kwargs)


def test_a_backbone_without_the_maps():
    with pytest.raises(ValueError, match=r"maps \['p3', .*expected also \['conv4_3', 'conv7'\]"):
        SSDPyramid(bottom_up=make_pyramid(300), extra_levels=[], strides=[8, 16])


def test_the_published_levels_are_the_configs():
    for size, levels in SSD_LEVELS.items():
        backbone = model_zoo.get_config(f"COCO-Detection/ssd{size}_VGG_16.py").model.backbone
        assert [tuple(x) for x in backbone.extra_levels] == list(levels.extra_levels)
        assert list(backbone.strides) == list(levels.strides)
