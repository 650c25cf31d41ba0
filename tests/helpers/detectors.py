"""A tiny one of each detector, for the tests that all of them have to pass.

A builder is called as ``make(num_classes=3, **kwargs)``, where the keyword arguments are the
detector's. It trains on the images of ``make_input``, 64 x 96 px and others.
"""

import pytest
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.utils.events import EventStorage
from torch.utils._pytree import tree_map

from gfocal.detectors import GFL
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.detector import Detector
from gfocal.modeling.matchers import FCOSMatcher
from gfocal.modeling.quality import NoQuality, QualityBranch, centerness
from gfocal.modeling.representations import DiracDistance
from gfocal.modeling.terms import FocalLoss, GIoULoss, QualityBranchLoss

from .tiny import make_gfl, make_head
from .tiny_centernet import make_centernet
from .tiny_cornernet import make_cornernet
from .tiny_distilled import make_distilled
from .tiny_fovea import make_fovea
from .tiny_retinanet import make_retinanet
from .tiny_ssd import make_ssd

__all__ = [
    "DETECTORS",
    "DETECTRON2S",
    "KEEPS_ITS_BOXES",
    "LARGE_LOSSES",
    "LOSSES_IN_SINGLE",
    "each_detector",
    "each_of_ours",
    "losses_of",
    "on_predictions",
]


def make_gflv1(num_classes=3, **kwargs):
    return make_gfl(num_classes, quality_predictor=NoQuality(), **kwargs)


def make_fcos(num_classes=3, **kwargs):
    """GFL with FCOS's matching, and centerness in a branch."""
    defaults = {
        "head": make_head(num_classes, QualityBranch(in_channels=8), DiracDistance()),
        "anchor_generator": DefaultAnchorGenerator(
            sizes=[[64], [128]], aspect_ratios=[1.0], strides=[8, 16], offset=0.5
        ),
        "matcher": FCOSMatcher(),
        "criterion": GFLCriterion(
            cls_loss=FocalLoss(),
            box_loss=GIoULoss(),
            quality_loss=QualityBranchLoss(measure=centerness),
            box_weight=centerness,
        ),
    }
    return make_gfl(num_classes, **{**defaults, **kwargs})


DETECTORS = {
    "gflv2": make_gfl,
    "gflv1": make_gflv1,
    "distilled": make_distilled,
    "fcos": make_fcos,
    "retinanet": make_retinanet,
    "fovea": make_fovea,
    "ssd": make_ssd,
    "centernet": make_centernet,
    "cornernet": make_cornernet,
}
# Their boxes are as published, neither clipped to the image nor dropped if they are empty.
KEEPS_ITS_BOXES = {"centernet", "cornernet"}
# Class and quality loss compute in float32, whatever they get.
LOSSES_IN_SINGLE = {"fcos", "fovea"}
# Their first losses are large: float16 overflows at a gradient scaler's usual first scale.
LARGE_LOSSES = {"ssd", "centernet"}
# Matcher, running normaliser, post-processing, statistics and pictures are Detectron2's.
DETECTRON2S = {"retinanet"}

each_detector = pytest.mark.parametrize("name", DETECTORS)
each_of_ours = pytest.mark.parametrize("name", [x for x in DETECTORS if x not in DETECTRON2S])


def losses_of(model, batch):
    """The losses of a training step, {name: scalar}; Detectron2's RetinaNet needs a storage."""
    with EventStorage():
        return model.train()(batch)


def on_predictions(model, change):
    """Lets ``change`` replace each tensor that the network predicts."""

    def changed(outputs):
        return tree_map(lambda x: change(x) if hasattr(x, "dtype") else x, outputs)

    if isinstance(model, GFL):
        predictions = model.predictions
        model.predictions = lambda features: changed(predictions(features))
    elif isinstance(model, Detector):
        predict = model.predict
        model.predict = lambda images: spliced(predict(images))
    else:
        model.head.register_forward_hook(lambda module, inputs, outputs: changed(outputs))

    def spliced(outputs):
        return (*outputs[:-1], changed(outputs[-1]))  # before them may be anchors
