"""The arguments of CenterNet in a yacs config: MODEL.CENTERNET."""

from typing import Any

from detectron2.config import CfgNode, instantiate
from detectron2.config import LazyCall as L
from detectron2.modeling import build_backbone

from .centers import (
    CenterDistributions,
    CenterFocalLoss,
    CenterNetHead,
    CenterQualityFocalLoss,
    CenterSize,
)
from .heatmaps import centernet_radius, corner_radius
from .recipes import pick
from .representations import GeneralDistribution
from .yacs_keys import shared_arguments

__all__ = ["DEFAULTS", "centernet_arguments"]

# MODEL.CENTERNET.HEAT_LOSS, BOX and RADIUS: names of parts. "qfl" and "general_dfl" are ours, see
# docs/paper_vs_code.md.
HEAT_LOSS: dict[str, dict[str, Any]] = {
    "focal": {"heat_loss": L(CenterFocalLoss)()},
    "qfl": {"heat_loss": L(CenterQualityFocalLoss)()},
}
BOX: dict[str, dict[str, Any]] = {
    "size": {"box": L(CenterSize)()},
    "general_dfl": {
        # Bins at up to 128 cells, 512 pixels: of small boxes about one a cell, of large ones fewer.
        "box": L(CenterDistributions)(
            representation=L(GeneralDistribution.geometric)(first=1.0, last=128.0)
        ),
    },
}
RADIUS: dict[str, dict[str, Any]] = {
    "corner": {"radius": corner_radius},  # as mmdetection
    "centernet": {"radius": centernet_radius},  # as CenterNet's own code
}

# Keys with a number of a part: (the key that chooses the part, the names that have the number, the
# part, its argument, the default).
_NUMBERS: dict[str, tuple[str, tuple[str, ...], str, str, Any]] = {
    "QFL_BETA": ("HEAT_LOSS", ("qfl",), "heat_loss", "qfl_beta", 2.0),
    "LOSS_SIZE_WEIGHT": ("BOX", ("size", "general_dfl"), "box", "size_weight", 0.1),
    "LOSS_OFFSET_WEIGHT": ("BOX", ("size",), "box", "offset_weight", 1.0),
    "LOSS_DFL_WEIGHT": ("BOX", ("general_dfl",), "box", "dfl_weight", 0.25),
    "REG_MAX": ("BOX", ("general_dfl",), "box.representation", "reg_max", 16),
}

# Keys of MODEL.CENTERNET that choose parts or are numbers of theirs, with their defaults.
DEFAULTS = {
    "HEAT_LOSS": "focal",
    "BOX": "size",
    "RADIUS": "corner",
    **{key: number[-1] for key, number in _NUMBERS.items()},
}


def centernet_arguments(cfg: CfgNode) -> dict[str, Any]:
    """The arguments of CenterNet in a yacs config.

    Raises:
        ValueError: the keys do not fit together.
    """
    node = cfg.MODEL.CENTERNET
    backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    if node.IN_FEATURE not in shapes:
        raise ValueError(
            f"MODEL.CENTERNET.IN_FEATURE is {node.IN_FEATURE!r}; expected a map of the backbone: "
            f"{sorted(shapes)}"
        )
    parts = _parts(node)
    return {
        "backbone": backbone,
        "in_feature": node.IN_FEATURE,
        "head": CenterNetHead(
            in_channels=shapes[node.IN_FEATURE].channels,
            num_classes=node.NUM_CLASSES,
            box=parts["box"],
            conv_dim=node.CONV_DIM,
            prior_prob=node.PRIOR_PROB,
        ),
        **parts,
        "test_flip": node.FLIP_TEST,
        "test_nms_thresh": node.NMS_THRESH_TEST,
        **shared_arguments(cfg, node),
    }


def _parts(node: CfgNode) -> dict[str, Any]:
    """Heat loss, box reading and radius of a MODEL.CENTERNET node.

    Raises:
        ValueError: a name that is in no table, or a number that is not the default and that no
            chosen part reads.
    """
    parts: dict[str, Any] = {}
    for choice, table in (("HEAT_LOSS", HEAT_LOSS), ("BOX", BOX), ("RADIUS", RADIUS)):
        parts |= pick(table, node[choice], f"MODEL.CENTERNET.{choice}")
    for key, (choice, readers, place, argument, default) in _NUMBERS.items():
        if node[choice] in readers:
            slot, *inner = place.split(".")
            part = parts[slot][inner[0]] if inner else parts[slot]
            part[argument] = node[key]
        elif node[key] != default:
            raise ValueError(
                f"MODEL.CENTERNET.{key} is {node[key]!r}, and with MODEL.CENTERNET.{choice} "
                f"{node[choice]!r} nothing reads it; expected {default!r}, or a {choice} that "
                f"reads it: {', '.join(map(repr, readers))}"
            )
    return {
        "heat_loss": instantiate(parts["heat_loss"]),
        "box": instantiate(parts["box"]),
        "radius": parts["radius"],
    }
