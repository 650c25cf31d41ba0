"""FoveaBox: mmdetection's FoveaHead, with and without FeatureAlign."""

from ..names import DetectorTable
from .gfl import FPN

__all__ = ["FOVEABOX"]

FOVEABOX = DetectorTable(
    detector="FoveaBox",
    theirs="bbox_head.conv_reg.",
    ours="head.box_logits.",  # of GFL's head too, which is told by its scales
    rows=(
        *FPN,
        ("bbox_head.cls_convs.#.conv.*", "head.cls_tower.#.*"),
        ("bbox_head.cls_convs.#.gn.*", "head.cls_tower.#.norm.*"),
        ("bbox_head.reg_convs.#.conv.*", "head.box_tower.#.*"),
        ("bbox_head.reg_convs.#.gn.*", "head.box_tower.#.norm.*"),
        ("bbox_head.feature_adaption.conv_offset.*", "head.feature_align.offset.*"),
        ("bbox_head.feature_adaption.conv_adaption.*", "head.feature_align.conv.*"),
        ("bbox_head.conv_cls.*", "head.cls_logits.*"),
        ("bbox_head.conv_reg.*", "head.box_logits.*"),
    ),
    class_layer="head.cls_logits",
)
