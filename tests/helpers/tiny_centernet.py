"""A CenterNet small enough for a test."""

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from gfocal.detectors.centernet import CenterNet
from gfocal.modeling.centers import CenterFocalLoss, CenterNetHead, CenterSize


class FineBackbone(Backbone):
    """Average pooling to stride 4, then a 1x1 convolution."""

    size_divisibility = 16

    def __init__(self, channels=8):
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(3, channels, 1)

    def forward(self, x):
        return {"p2": self.conv(nn.functional.avg_pool2d(x, 4))}

    def output_shape(self):
        return {"p2": ShapeSpec(channels=self.channels, stride=4)}


def make_centernet(num_classes=3, **kwargs):
    box = kwargs.pop("box", None) or CenterSize()
    defaults = {
        "backbone": FineBackbone(),
        "head": CenterNetHead(in_channels=8, num_classes=num_classes, box=box, conv_dim=8),
        "box": box,
        "heat_loss": CenterFocalLoss(),
        "num_classes": num_classes,
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    return CenterNet(**{**defaults, **kwargs})
