"""SSD: mmdetection's SSDHead on SSDVGG and SSDNeck, and the layers of VGG-16."""

from collections.abc import Mapping

from torch import Tensor

from ..names import DetectorTable

__all__ = ["SSD", "VGG"]

# torchvision's VGG-16 and mmdetection's count convolutions, ReLUs and poolings in one row.
VGG = (
    ("backbone.features.0.*", "backbone.bottom_up.conv1_1.*"),
    ("backbone.features.2.*", "backbone.bottom_up.conv1_2.*"),
    ("backbone.features.5.*", "backbone.bottom_up.conv2_1.*"),
    ("backbone.features.7.*", "backbone.bottom_up.conv2_2.*"),
    ("backbone.features.10.*", "backbone.bottom_up.conv3_1.*"),
    ("backbone.features.12.*", "backbone.bottom_up.conv3_2.*"),
    ("backbone.features.14.*", "backbone.bottom_up.conv3_3.*"),
    ("backbone.features.17.*", "backbone.bottom_up.conv4_1.*"),
    ("backbone.features.19.*", "backbone.bottom_up.conv4_2.*"),
    ("backbone.features.21.*", "backbone.bottom_up.conv4_3.*"),
    ("backbone.features.24.*", "backbone.bottom_up.conv5_1.*"),
    ("backbone.features.26.*", "backbone.bottom_up.conv5_2.*"),
    ("backbone.features.28.*", "backbone.bottom_up.conv5_3.*"),
    ("backbone.features.31.*", "backbone.bottom_up.conv6.*"),
    ("backbone.features.33.*", "backbone.bottom_up.conv7.*"),
)


def _num_classes(state_dict: Mapping[str, Tensor]) -> int | None:
    """K, from the channels of a level: those of the classes and background of each of its priors,
    which have four deltas each."""
    logits, deltas = (state_dict.get(f"head.{x}.0.bias") for x in ("cls_logits", "deltas"))
    if logits is None or deltas is None:
        return None
    return 4 * len(logits) // len(deltas) - 1


SSD = DetectorTable(
    detector="SSD",
    theirs="neck.l2_norm.",
    ours="backbone.l2_norm.",
    backbone=VGG,
    rows=(
        ("neck.l2_norm.*", "backbone.l2_norm.*"),
        ("neck.extra_layers.#.0.conv.*", "backbone.extra_levels.#.reduce.*"),
        ("neck.extra_layers.#.1.conv.*", "backbone.extra_levels.#.conv.*"),
        ("bbox_head.cls_convs.#.0.*", "head.cls_logits.#.*"),
        ("bbox_head.reg_convs.#.0.*", "head.deltas.#.*"),
    ),
    class_layer="head.cls_logits",  # one a level: no layer has a row a class
    num_classes=_num_classes,
)
