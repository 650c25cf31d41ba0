"""The names of weights in mmdetection and here, as tables: one table a detector.

A row is (mmdetection's name, ours) and is read in both directions. "#" is a number and "*" the last
part of a name (weight, bias, running_mean, ...), the same on both sides. The rows of a ResNet are
common to all detectors that have one.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

__all__ = [
    "OLD_BACKBONE_ROWS",
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
        theirs, ours: a part of a name in mmdetection, and of one here, that only this detector's
            weights have.
        rows: of its neck and head.
        class_layer: our name of the layer with one row of weights a class.
        num_classes: K of a state dict of ours; None if it does not tell. By default the rows of
            ``class_layer``.
        backbone: rows of its backbone; None for a ResNet or Res2Net.
        extra_class_row: a prefix of our names. A head with such a name has one class row more in
            mmdetection; that row never meant anything. None: there is no such head.
        linear: our names of weights of linear layers that are 1x1 convolutions in mmdetection.
        constants: constants that are computed here and stored in mmdetection: {their name: a
            function of their state dict, which answers None if it cannot tell the constant}.
    """

    detector: str
    theirs: str
    ours: str
    rows: tuple[Row, ...]
    class_layer: str
    num_classes: Callable[[Mapping[str, Tensor]], int | None] | None = None
    backbone: tuple[Row, ...] | None = None
    extra_class_row: str | None = None
    linear: tuple[str, ...] = ()
    constants: Mapping[str, Callable[[Mapping[str, Tensor]], Tensor | None]] = MappingProxyType({})

    @property
    def class_rows(self) -> tuple[str, str]:
        """Our names of the weights with one row a class: weight, bias."""
        return f"{self.class_layer}.weight", f"{self.class_layer}.bias"

    def classes_of(self, state_dict: Mapping[str, Tensor]) -> int | None:
        """K of a state dict of ours; None if it does not tell."""
        if self.num_classes is not None:
            return self.num_classes(state_dict)
        bias = state_dict.get(self.class_rows[1])
        return None if bias is None else len(bias)

    def has_extra_class_row(self, names: Iterable[str]) -> bool:
        """Whether a head with these names of ours has one class row more in mmdetection."""
        start = self.extra_class_row
        return start is not None and any(name.startswith(start) for name in names)

    def backbone_rows(self, names: Iterable[str], *, res2net: str) -> Sequence[Row]:
        """Rows of the backbone, see :func:`backbone_rows`."""
        return backbone_rows(names, res2net=res2net) if self.backbone is None else self.backbone


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
