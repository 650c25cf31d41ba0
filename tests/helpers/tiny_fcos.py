"""The FCOS of Detectron2's main with QFL and DFL (tests/extending/fcos.py), small enough for a
test."""

import importlib.util

import pytest
import torch
from detectron2.layers import ShapeSpec

from .tiny import TinyBackbone

needs_fcos = pytest.mark.skipif(
    importlib.util.find_spec("detectron2.modeling.meta_arch.fcos") is None,
    reason="Detectron2 has FCOS in its main branch",
)


def make_gfl_fcos(num_classes=3, reg_max=16, **kwargs):
    """Its weights and scores are not all alike."""
    from tests.extending.fcos import GFLFCOS, GFLFCOSHead

    head = GFLFCOSHead(
        reg_max=reg_max,
        input_shape=[ShapeSpec(channels=8)] * 2,
        num_classes=num_classes,
        conv_dims=[8],
        prior_prob=0.2,
    )
    for conv in (head.cls_subnet[0], head.bbox_subnet[0], head.cls_score, head.bbox_pred):
        torch.nn.init.normal_(conv.weight, std=0.1)
    defaults = {
        "backbone": TinyBackbone(),
        "head": head,
        "head_in_features": ["p3", "p4"],
        "num_classes": num_classes,
        "test_score_thresh": 0.05,
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    return GFLFCOS(**{**defaults, **kwargs})
