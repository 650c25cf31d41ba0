"""The names of weights in mmdetection and here, as tables: one table a detector.

A row is (mmdetection's name, ours) and is read in both directions. "#" is a number and "*" the last
part of a name (weight, bias, running_mean, ...), the same on both sides. The rows of the backbones
are common to all detectors.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "GFL",
    "OLD_BACKBONE_ROWS",
    "TABLES",
    "DetectorTable",
    "Row",
    "backbone_rows",
    "inverse",
    "rename",
]

Row = tuple[str, str]


class DetectorTable(NamedTuple):
    """One detector's names in mmdetection and here, for conversions.

    Attributes:
        detector: its name, for messages.
        rows: of its neck and head.
        class_layer: our name of the layer with one row of weights a class.
        extra_class_row: a prefix of our names. A head with such a name has one class row more in
            mmdetection; that row never meant anything. None: there is no such head.
        linear: our names of weights of linear layers that are 1x1 convolutions in mmdetection.
        constants: constants that are computed here and stored in mmdetection: {their name: a
            function of their state dict, which answers None if it cannot tell the constant}.
    """

    detector: str
    rows: tuple[Row, ...]
    class_layer: str
    extra_class_row: str | None = None
    linear: tuple[str, ...] = ()
    constants: Mapping[str, Callable[[Mapping[str, Tensor]], Tensor | None]] = MappingProxyType({})

    @property
    def class_rows(self) -> tuple[str, str]:
        """Our names of the weights with one row a class: weight, bias."""
        return f"{self.class_layer}.weight", f"{self.class_layer}.bias"

    def has_extra_class_row(self, names: Iterable[str]) -> bool:
        """Whether a head with these names of ours has one class row more in mmdetection."""
        start = self.extra_class_row
        return start is not None and any(name.startswith(start) for name in names)


def _bins(state_dict: Mapping[str, Tensor]) -> Tensor | None:
    """The bins 0..n of GFL's distributions."""
    box_logits = state_dict.get("bbox_head.gfl_reg.weight")
    if box_logits is None:
        return None
    return torch.arange(len(box_logits) // 4, dtype=box_logits.dtype)


GFL = DetectorTable(
    detector="GFL",
    rows=(
        *((f"neck.lateral_convs.{i}.conv.*", f"backbone.fpn_lateral{i + 3}.*") for i in range(3)),
        *((f"neck.fpn_convs.{i}.conv.*", f"backbone.fpn_output{i + 3}.*") for i in range(3)),
        ("neck.fpn_convs.3.conv.*", "backbone.top_block.p6.*"),
        ("neck.fpn_convs.4.conv.*", "backbone.top_block.p7.*"),
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
TABLES = (GFL,)

# The shortcut of a ResNet is (convolution, norm), that of a Res2Net (pooling, convolution, norm).
_RESNET_ROWS = [
    ("backbone.conv1.*", "backbone.bottom_up.stem.conv1.*"),
    ("backbone.bn1.*", "backbone.bottom_up.stem.conv1.norm.*"),
]
_RES2NET_ROWS = [
    ("backbone.stem.0.*", "backbone.bottom_up.stem.conv1.*"),
    ("backbone.stem.1.*", "backbone.bottom_up.stem.conv1.norm.*"),
    ("backbone.stem.3.*", "backbone.bottom_up.stem.conv2.*"),
    ("backbone.stem.4.*", "backbone.bottom_up.stem.conv2.norm.*"),
    ("backbone.stem.6.*", "backbone.bottom_up.stem.conv3.*"),
    ("backbone.stem.7.*", "backbone.bottom_up.stem.conv3.norm.*"),
]
for _i in range(1, 5):
    _theirs, _ours = f"backbone.layer{_i}.#", f"backbone.bottom_up.res{_i + 1}.#"
    _both = [
        (f"{_theirs}.conv#.*", f"{_ours}.conv#.*"),
        (f"{_theirs}.bn#.*", f"{_ours}.conv#.norm.*"),
    ]
    _RESNET_ROWS += [
        *_both,
        (f"{_theirs}.conv2.conv_offset.*", f"{_ours}.conv2_offset.*"),
        (f"{_theirs}.downsample.0.*", f"{_ours}.shortcut.*"),
        (f"{_theirs}.downsample.1.*", f"{_ours}.shortcut.norm.*"),
    ]
    _RES2NET_ROWS += [
        *_both,
        (f"{_theirs}.convs.#.*", f"{_ours}.conv2.#.*"),
        (f"{_theirs}.bns.#.*", f"{_ours}.conv2.#.norm.*"),
        (f"{_theirs}.convs.#.conv_offset.*", f"{_ours}.conv2_offset.#.*"),
        (f"{_theirs}.downsample.1.*", f"{_ours}.shortcut.*"),
        (f"{_theirs}.downsample.2.*", f"{_ours}.shortcut.norm.*"),
    ]
# Names of mmdetection before mmcv 1.0; they are read, never written.
OLD_BACKBONE_ROWS = [
    (f"backbone.layer{i}.#.conv2_offset.*", f"backbone.bottom_up.res{i + 1}.#.conv2_offset.*")
    for i in range(1, 5)
]


def backbone_rows(names: Iterable[str], *, res2net: str) -> list[Row]:
    """Rows of the backbone that has these names.

    Args:
        names: of either side.
        res2net: prefixes of names that only a Res2Net has.
    """
    return _RES2NET_ROWS if any(name.startswith(res2net) for name in names) else _RESNET_ROWS


def inverse(rows: Iterable[Row]) -> list[Row]:
    """The rows from our names to mmdetection's."""
    return [(ours, theirs) for theirs, ours in rows]


def rename(names: Iterable[str], rows: Iterable[Row]) -> tuple[dict[str, str], list[str]]:
    """Renames by the first row whose left side matches.

    Returns:
        {name: new name}, and the names that no row maps.

    Raises:
        ValueError: if several names become the same one.
    """
    patterns = [
        (
            re.compile(re.escape(left).replace(r"\#", r"(\d+)").replace(r"\*", r"(\w+)")),
            right.replace("#", "{}").replace("*", "{}"),
        )
        for left, right in rows
    ]
    renamed, unmapped = {}, []
    for name in names:
        for pattern, target in patterns:
            match = pattern.fullmatch(name)
            if match:
                renamed[name] = target.format(*match.groups())
                break
        else:
            unmapped.append(name)
    twice = [name for name, count in Counter(renamed.values()).items() if count > 1]
    if twice:
        raise ValueError(f"several keys become the same one: {', '.join(twice)}")
    return renamed, unmapped
