"""The hourglass backbone. (Its numbers are tested in test_cornernet_official.py.)"""

import pytest
import torch

from gfocal.backbones import Hourglass


def test_the_published_one():
    """Hourglass-104: 104 layers on the longest way, 187.7 M weights."""
    with torch.device("meta"):
        backbone = Hourglass()
    shapes = backbone.output_shape()
    assert {k: (v.channels, v.stride) for k, v in shapes.items()} == {
        "stack1": (256, 4),
        "stack2": (256, 4),
    }
    assert backbone.size_divisibility == 128


def test_sizes():
    backbone = Hourglass(channels=[8, 12, 16], blocks=[1, 2, 1], num_stacks=3, out_channels=6)
    assert backbone.size_divisibility == 16
    maps = backbone(torch.randn(2, 3, 48, 80))
    assert {k: tuple(v.shape) for k, v in maps.items()} == {
        f"stack{i}": (2, 6, 12, 20) for i in (1, 2, 3)
    }
    assert all((x >= 0).all() for x in maps.values())


def test_a_shortcut_layer_wherever_there_is_a_stride():
    backbone = Hourglass(channels=[8, 8], blocks=[1, 1], num_stacks=1, out_channels=8)
    hourglass = backbone.hourglasses[0]
    assert hourglass.down[0].shortcut is not None
    assert hourglass.skip[0].shortcut is None and hourglass.up[0].shortcut is None


def test_the_whole_image_reaches_the_middle():
    """The last stack's map sees far: a pixel changes it on the other side."""
    torch.manual_seed(0)
    backbone = Hourglass(channels=[4, 4, 4, 4], blocks=[1, 1, 1, 1], num_stacks=1, out_channels=4)
    backbone.eval()
    x = torch.randn(1, 3, 96, 96)
    other = x.clone()
    other[..., :4, :4] += 10
    changed = backbone(x)["stack1"] != backbone(other)["stack1"]
    assert changed[..., -4:, -4:].any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"channels": [8, 8]}, "blocks"),
        ({"channels": [8], "blocks": [1]}, "at least two sizes"),
        ({"channels": [8, 8], "blocks": [1, 0]}, "positive number"),
        ({"num_stacks": 0}, "num_stacks is 0"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Hourglass(**kwargs)
