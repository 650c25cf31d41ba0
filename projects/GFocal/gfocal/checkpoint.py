"""Weights of other code bases: the names and shapes of mmdetection's GFL models, and ours."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["convert_mmdet_state_dict"]

# mmdetection's name -> ours, tried in order. A replacement may compute the level or stage.
_STAGE = {"1": "res2", "2": "res3", "3": "res4", "4": "res5"}
_TOP = {"3": "p6", "4": "p7"}
_QUALITY = {"0": "fc1", "2": "fc2"}
_RULES: list[tuple[str, Any]] = [
    (r"backbone\.conv1\.(\w+)", r"backbone.bottom_up.stem.conv1.\1"),
    (r"backbone\.bn1\.(\w+)", r"backbone.bottom_up.stem.conv1.norm.\1"),
    (
        r"backbone\.layer([1-4])\.(\d+)\.conv(\d)\.(\w+)",
        lambda m: f"backbone.bottom_up.{_STAGE[m[1]]}.{m[2]}.conv{m[3]}.{m[4]}",
    ),
    (
        r"backbone\.layer([1-4])\.(\d+)\.bn(\d)\.(\w+)",
        lambda m: f"backbone.bottom_up.{_STAGE[m[1]]}.{m[2]}.conv{m[3]}.norm.{m[4]}",
    ),
    (
        r"backbone\.layer([1-4])\.(\d+)\.downsample\.0\.(\w+)",
        lambda m: f"backbone.bottom_up.{_STAGE[m[1]]}.{m[2]}.shortcut.{m[3]}",
    ),
    (
        r"backbone\.layer([1-4])\.(\d+)\.downsample\.1\.(\w+)",
        lambda m: f"backbone.bottom_up.{_STAGE[m[1]]}.{m[2]}.shortcut.norm.{m[3]}",
    ),
    (
        r"neck\.lateral_convs\.([012])\.conv\.(\w+)",
        lambda m: f"backbone.fpn_lateral{int(m[1]) + 3}.{m[2]}",
    ),
    (
        r"neck\.fpn_convs\.([012])\.conv\.(\w+)",
        lambda m: f"backbone.fpn_output{int(m[1]) + 3}.{m[2]}",
    ),
    (r"neck\.fpn_convs\.([34])\.conv\.(\w+)", lambda m: f"backbone.top_block.{_TOP[m[1]]}.{m[2]}"),
    (r"bbox_head\.cls_convs\.(\d+)\.conv\.(\w+)", r"head.cls_tower.\1.\2"),
    (r"bbox_head\.cls_convs\.(\d+)\.(?:gn|bn)\.(\w+)", r"head.cls_tower.\1.norm.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.conv\.(\w+)", r"head.box_tower.\1.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.(?:gn|bn)\.(\w+)", r"head.box_tower.\1.norm.\2"),
    (r"bbox_head\.gfl_cls\.(\w+)", r"head.cls_logits.\1"),
    (r"bbox_head\.gfl_reg\.(\w+)", r"head.box_logits.\1"),
    (r"bbox_head\.scales\.(\d+)\.scale", r"head.scales.\1"),
    (
        r"bbox_head\.reg_conf\.([02])\.(\w+)",
        lambda m: f"head.quality_predictor.{_QUALITY[m[1]]}.{m[2]}",
    ),
]
# What has no counterpart: a counter that frozen batch norm does not keep, and the constant 0..n.
_DROPPED = re.compile(r".*\.num_batches_tracked|bbox_head\.integral\.project")


def convert_mmdet_state_dict(
    state_dict: Mapping[str, Tensor], num_classes: int | None = None
) -> dict[str, Tensor]:
    """Rename (and where needed reshape) the weights of mmdetection's or the official GFL models.

    Covers ResNet + FPN + GFL head, v1 and v2. Dropped are ``num_batches_tracked``,
    ``integral.project`` and the last class row of a v2 head: the official v2 head has
    num_classes + 1 rows, of which the last never meant anything.

    Args:
        state_dict: name -> tensor.
        num_classes: keep so many class rows. By default all of them for v1 and all but the last
            for v2 (whose ``reg_conf`` tells it from v1).

    Returns:
        State dict of :class:`gfocal.meta_arch.GFL` with ``build_gfl_resnet_fpn_backbone`` or the
        FPN of configs/common/models/gfl.py. The tensors share storage with the input's.

    Raises:
        ValueError: if keys have no counterpart here (all are listed), or the class rows are not
            ``num_classes`` (in v2 also one more).
    """
    converted, unmapped = {}, []
    for name, value in state_dict.items():
        if _DROPPED.fullmatch(name):
            continue
        for pattern, replacement in _RULES:
            match = re.fullmatch(pattern, name)
            if match:
                ours = replacement(match) if callable(replacement) else match.expand(replacement)
                converted[ours] = torch.as_tensor(value)
                break
        else:
            unmapped.append(name)
    if unmapped:
        raise ValueError(
            f"{len(unmapped)} keys are not of a ResNet + FPN + GFL model of mmdetection: "
            + ", ".join(unmapped)
        )
    is_v2 = any(name.startswith("head.quality_predictor.") for name in converted)
    for name in ("head.quality_predictor.fc1.weight", "head.quality_predictor.fc2.weight"):
        if name in converted:  # 1x1 convolutions there, linear layers here
            converted[name] = converted[name].flatten(start_dim=1)
    for name in ("head.cls_logits.weight", "head.cls_logits.bias"):
        if name in converted:
            converted[name] = _class_rows(name, converted[name], num_classes, is_v2)
    return converted


def _class_rows(name: str, value: Tensor, num_classes: int | None, is_v2: bool) -> Tensor:
    rows = len(value)
    keep = rows - int(is_v2) if num_classes is None else num_classes
    if not keep <= rows <= keep + int(is_v2):
        extra = " or one more, as the official v2 heads have" if is_v2 else ""
        raise ValueError(f"{name} has {rows} class rows; expected num_classes {keep}{extra}")
    return value[:keep]
