"""An SSD small enough for a test."""

from detectron2.modeling.box_regression import Box2BoxTransform

from gfocal.backbones.vgg import VGG16, SSDPyramid
from gfocal.detectors.ssd import SSD
from gfocal.modeling.matchers import MaxIoUMatcher
from gfocal.modeling.prior_losses import SoftmaxHardNegativeLoss
from gfocal.modeling.priors import PriorGenerator


def make_ssd(num_classes=3, **kwargs):
    """Three levels of strides 8, 16 and 32, with 4, 6 and 4 priors a location."""
    strides = [8, 16, 32]
    defaults = {
        "backbone": SSDPyramid(
            bottom_up=VGG16(width=2), extra_levels=[(8, 3, 2, 1)], strides=strides
        ),
        "anchor_generator": PriorGenerator(
            sizes=[(12, 24), (24, 48), (48, 80)],
            aspect_ratios=[[2], [2, 3], [2]],
            strides=strides,
        ),
        "matcher": MaxIoUMatcher(),
        "box2box_transform": Box2BoxTransform((10.0, 10.0, 5.0, 5.0)),
        "cls_loss": SoftmaxHardNegativeLoss(),
        "num_classes": num_classes,
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    return SSD(**{**defaults, **kwargs})
