"""GFL v1 and v2: mmdetection's GFLHead, and GFocalV2's GFocalHead."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..names import DetectorTable

__all__ = ["FPN", "GFL"]

# A feature pyramid on C3..C5, with P6 and P7.
FPN = (
    *((f"neck.lateral_convs.{i}.conv.*", f"backbone.fpn_lateral{i + 3}.*") for i in range(3)),
    *((f"neck.fpn_convs.{i}.conv.*", f"backbone.fpn_output{i + 3}.*") for i in range(3)),
    ("neck.fpn_convs.3.conv.*", "backbone.top_block.p6.*"),
    ("neck.fpn_convs.4.conv.*", "backbone.top_block.p7.*"),
)


def _bins(state_dict: Mapping[str, Tensor]) -> Tensor | None:
    """The bins 0..n of GFL's distributions."""
    box_logits = state_dict.get("bbox_head.gfl_reg.weight")
    if box_logits is None:
        return None
    return torch.arange(len(box_logits) // 4, dtype=box_logits.dtype)


GFL = DetectorTable(
    detector="GFL",
    theirs="bbox_head.gfl_cls.",
    ours="head.scales.",
    rows=(
        *FPN,
        ("bbox_head.cls_convs.#.conv.*", "head.cls_tower.#.*"),
        ("bbox_head.cls_convs.#.gn.*", "head.cls_tower.#.norm.*"),
        ("bbox_head.reg_convs.#.conv.*", "head.box_tower.#.*"),
        ("bbox_head.reg_convs.#.gn.*", "head.box_tower.#.norm.*"),
        ("bbox_head.gfl_cls.*", "head.cls_logits.*"),
        ("bbox_head.gfl_reg.*", "head.box_logits.*"),
        ("bbox_head.scales.#.scale", "head.scales.#"),
        ("bbox_head.reg_conf.0.*", "head.quality_predictor.fc1.*"),
        ("bbox_head.reg_conf.2.*", "head.quality_predictor.fc2.*"),
    ),
    class_layer="head.cls_logits",
    extra_class_row="head.quality_predictor.",
    linear=("head.quality_predictor.fc1.weight", "head.quality_predictor.fc2.weight"),
    constants={"bbox_head.integral.project": _bins},
)
