"""Weights between mmdetection's names and ours, by the table of a detector; classifiers' weights.

A name without counterpart is an error. If a file is converted, so is a weight that is missing or
has another shape than the model's.
"""

import logging
import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import instantiate
from torch import Tensor

from .fit import is_optional, problems_of, refuse_misfit
from .names import OLD_BACKBONE_ROWS, DetectorTable, Row, backbone_rows, inverse, rename
from .reading import load_mmdet_checkpoint, load_weights_only, named_tensors
from .tables import table_of
from .tables.ssd import VGG

__all__ = [
    "convert_checkpoint_to_mmdet",
    "convert_imagenet_state_dict",
    "convert_mmdet_checkpoint",
    "convert_mmdet_state_dict",
    "to_mmdet_state_dict",
]

# Prefixes of the layers that only a classifier has.
_CLASSIFIERS = ("fc.", "classifier.")


def convert_mmdet_state_dict(
    state_dict: Mapping[str, Tensor],
    num_classes: int | None = None,
    table: DetectorTable | None = None,
) -> dict[str, Tensor]:
    """Rename the weights of mmdetection's or the official models; some are reshaped. The detector
    is told by its names.

    Of GFL this covers ResNet, ResNeXt and Res2Net v1d, with or without deformable stages, FPN, and
    the heads of v1 and v2. Three things are dropped: ``num_batches_tracked``,
    ``integral.project``, and the last class row of a v2 head. (The official v2 head has
    num_classes + 1 rows; the last one never meant anything.)

    Args:
        state_dict: name -> tensor.
        num_classes: number of class rows to keep. By default all of v1, and all but the last of v2
            (a head with ``reg_conf`` is v2).
        table: of the detector; by default it is told by the names.

    Returns:
        State dict of the detector with the backbones of the zoo's configs. The tensors share
        storage with the input's.

    Raises:
        ValueError: if keys have no counterpart here or share one (all are listed), or the number of
            class rows is not ``num_classes`` (for v2 also one more).
    """
    table = table or table_of(state_dict)
    converted, unmapped = _convert(state_dict, num_classes, table)
    _refuse(unmapped, f"not of a {table.detector} model of mmdetection")
    return converted


def convert_mmdet_checkpoint(
    path: str | os.PathLike,
    num_classes: int | None = None,
    model_cfg: Any = None,
    table: DetectorTable | None = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Read and convert a checkpoint of mmdetection or the official code, and check it for holes.

    Args:
        path: see :func:`load_mmdet_checkpoint`.
        num_classes: see :func:`convert_mmdet_state_dict`.
        model_cfg: ``model`` of the LazyConfig that the weights are for. By default one of the
            published models'.
        table: of the detector; by default it is told by the names.

    Returns:
        The converted state dict, and the names of the published configs it is for ([] with a
        ``model_cfg``).

    Raises:
        FileNotFoundError, ValueError: as these two functions. Also if a key has no counterpart, is
            missing, or has another shape than in the (nearest published) model; the message lists
            all of them.
    """
    state_dict = load_mmdet_checkpoint(path)
    table = table or table_of(state_dict)
    converted, unmapped = _convert(state_dict, num_classes, table)
    _refuse_other_bins(path, model_cfg, table)
    names, problems = problems_of(converted, model_cfg, table)
    problems.update({name: "has no counterpart here" for name in unmapped})
    theirs, _ = rename(problems, inverse(_rows_of(converted, table)))
    refuse_misfit(path, {theirs.get(k, k): v for k, v in problems.items()}, names)
    return converted, names


def convert_checkpoint_to_mmdet(
    path: str | os.PathLike, model_cfg: Any = None, table: DetectorTable | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Read a checkpoint of ours, check it for holes, and rename its weights to mmdetection's names.

    Args:
        path: a file with a ``model``, or a state dict itself.
        model_cfg, table: see :func:`convert_mmdet_checkpoint`.

    Returns:
        The state dict of :func:`to_mmdet_state_dict`, and the names of the published configs it is
        for ([] with a ``model_cfg``).

    Raises:
        FileNotFoundError, ValueError: as :func:`convert_mmdet_checkpoint`.
    """
    state_dict = named_tensors(path, load_weights_only(path), "model")
    table = table or table_of(state_dict)
    names, problems = problems_of(state_dict, model_cfg, table)
    refuse_misfit(path, problems, names)
    _refuse_other_bins(path, model_cfg, table)
    if table.detector == "SSD" and model_cfg is not None:
        cls_loss = instantiate(model_cfg.cls_loss)
        if cls_loss.num_channels(1) != 2:
            raise ValueError(
                f"{path} is an SSD without a channel for the background, which mmdetection's has "
                f"(model.cls_loss is a {type(cls_loss).__name__})"
            )
    return to_mmdet_state_dict(state_dict, table), names


def to_mmdet_state_dict(
    state_dict: Mapping[str, Tensor], table: DetectorTable | None = None
) -> dict[str, Tensor]:
    """The inverse of :func:`convert_mmdet_state_dict`: our names to the official code's.

    The official GFL has more than ours, and this is added: the constant ``integral.project``, and
    for v2 the extra class row, with weights of 0 and the bias of a class score of 0.01. (The
    official inference takes that row for a class. With 0.01 it stays below the score threshold.)

    Args:
        state_dict: of a detector of ours.
        table: of the detector; by default it is told by the names.

    Raises:
        ValueError: if keys have no counterpart there (all are listed).
    """
    table = table or table_of(state_dict)
    names = [name for name in state_dict if not is_optional(name)]
    renamed, unmapped = rename(names, inverse(_rows_of(state_dict, table)))
    _refuse(unmapped, f"not of a {table.detector} model that the official code has")
    ours = {name: state_dict[name] for name in renamed}
    for name in table.linear:
        if name in ours:
            ours[name] = ours[name][:, :, None, None]
    if table.has_extra_class_row(ours):
        for name, fill in zip(table.class_rows, (0.0, -math.log(99))):
            if name in ours:
                ours[name] = torch.cat([ours[name], torch.full_like(ours[name][:1], fill)])
    converted = {theirs: ours[name] for name, theirs in renamed.items()}
    constants = {name: constant(converted) for name, constant in table.constants.items()}
    return converted | {name: value for name, value in constants.items() if value is not None}


def convert_imagenet_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a classifier into those of ``backbone.bottom_up``.

    Args:
        state_dict: of torchvision's ResNet or ResNeXt, or of the ImageNet models that mmdetection
            starts from (ResNeXt, Res2Net v1d), whose names are the same; or of VGG-16, that of
            torchvision or mmdetection. The classifiers ``fc`` and ``classifier`` and
            ``num_batches_tracked`` are dropped. A VGG-16 without SSD's conv6 and conv7, such as
            torchvision's, is taken with a warning.

    Raises:
        ValueError: if keys have no counterpart here (all are listed).
    """
    names = [n for n in state_dict if not n.startswith(_CLASSIFIERS) and not _is_counter(n)]
    is_vgg = "features.0.weight" in state_dict
    rows = VGG if is_vgg else backbone_rows(state_dict, res2net="stem.")
    renamed, unmapped = rename([f"backbone.{n}" for n in names], rows)
    _refuse(unmapped, "not of a ResNet, ResNeXt, Res2Net or VGG-16 (without batch norm)")
    if is_vgg and not any(".conv6." in name for name in renamed.values()):
        logging.getLogger(__name__).warning(
            "The VGG-16 has no conv6 and conv7 (a classifier has linear layers there, which are "
            "dropped): these two start untrained"
        )
    return {ours: state_dict[name] for name, ours in zip(names, renamed.values())}


def _convert(
    state_dict: Mapping[str, Tensor], num_classes: int | None, table: DetectorTable
) -> tuple[dict[str, Tensor], list[str]]:
    """The converted state dict, and the keys that no row maps."""
    backbone = table.backbone_rows(state_dict, res2net="backbone.stem.")
    names = [n for n in state_dict if n not in table.constants and not _is_counter(n)]
    renamed, unmapped = rename(names, [*backbone, *table.rows, *OLD_BACKBONE_ROWS])
    converted = {ours: torch.as_tensor(state_dict[theirs]) for theirs, ours in renamed.items()}
    for name in table.linear:
        if name in converted and converted[name].shape[2:] == (1, 1):
            converted[name] = converted[name].flatten(start_dim=1)
    has_extra = table.has_extra_class_row(converted)
    for name in table.class_rows:
        if name in converted:
            converted[name] = _class_rows(name, converted[name], num_classes, has_extra)
    found = num_classes if num_classes is None else table.classes_of(converted)
    if found != num_classes:
        raise ValueError(f"the weights are of {found} classes; expected num_classes {num_classes}")
    return converted, unmapped


def _rows_of(ours: Mapping[str, Tensor], table: DetectorTable) -> list[Row]:
    """Rows for the names of a state dict of ours."""
    backbone = table.backbone_rows(ours, res2net="backbone.bottom_up.stem.conv2.")
    return [*backbone, *table.rows]


def _is_counter(name: str) -> bool:
    """Whether it is batch norm's counter, which frozen batch norm does not keep."""
    return name.endswith(".num_batches_tracked")


def _refuse(unmapped: list[str], reason: str) -> None:
    if unmapped:
        raise ValueError(f"{len(unmapped)} keys are {reason}: " + ", ".join(unmapped))


def _refuse_other_bins(path: str | os.PathLike, model_cfg: Any, table: DetectorTable) -> None:
    """mmdetection's bins are 0, 1, ..., n, and their width is in no file of ours."""
    if table.detector != "GFL" or model_cfg is None:
        return
    representation = instantiate(model_cfg.head.box_representation)
    width = getattr(representation, "bin_width", 1.0)
    if width != 1:
        raise ValueError(
            f"{path}: the config's model.head.box_representation is {representation!r}; expected "
            "bins 0, 1, ..., n, as mmdetection's"
        )


def _class_rows(name: str, value: Tensor, num_classes: int | None, has_extra: bool) -> Tensor:
    if value.ndim == 0:
        raise ValueError(f"{name} is a single number; expected one row a class")
    rows = len(value)
    keep = rows - int(has_extra) if num_classes is None else num_classes
    if not keep <= rows <= keep + int(has_extra):
        extra = " or one more, as the official v2 heads have" if has_extra else ""
        raise ValueError(f"{name} has {rows} class rows; expected num_classes {keep}{extra}")
    return value[:keep]
