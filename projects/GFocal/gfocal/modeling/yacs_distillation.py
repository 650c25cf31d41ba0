"""MODEL.DISTILLATION: a GFL of MODEL.GFL that learns from a teacher."""

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.registry import locate
from torch import nn

from .distillation import (
    ClassDistillation,
    DistillationCriterion,
    FeatureImitation,
    LocalizationDistillation,
)
from .teaching import ValuableRegion
from .yacs_keys import gfl_arguments

__all__ = ["DEFAULTS", "distilled_arguments"]

# The keys. A weight of 0 leaves the loss out.
DEFAULTS: dict[str, Any] = {
    "TEACHER": "frozen",
    "CONFIG": "",
    "WEIGHTS": "",
    "LD_WEIGHT": 0.25,
    "LD_VLR_WEIGHT": 0.25,
    "KD_WEIGHT": 10.0,
    "IMITATION_WEIGHT": 0.0,
    "NORMALISED": False,
}
# By name, as they are not of the papers.
_TEACHERS = {
    "frozen": "gfocal.engine.teachers.FrozenTeacher",
    "ema": "gfocal.engine.teachers.EMATeacher",
}
_ARGUMENTS = ("cls_loss", "box_loss", "dist_loss", "quality_loss", "box_weight", "cls_divisor")


def distilled_arguments(cfg: CfgNode, deform_conv: Callable[..., nn.Module]) -> dict[str, Any]:
    """The arguments of DistilledGFL in a yacs config.

    Args:
        cfg, deform_conv: see :func:`gfocal.modeling.yacs_keys.gfl_arguments`.

    Raises:
        ValueError: the keys do not fit together.
    """
    node, arguments = cfg.MODEL.DISTILLATION, gfl_arguments(cfg, deform_conv)
    if node.TEACHER not in _TEACHERS:
        raise ValueError(
            f"MODEL.DISTILLATION.TEACHER is {node.TEACHER!r}; expected one of "
            f"{', '.join(map(repr, _TEACHERS))}"
        )
    of_file: dict[str, Any] = {"weights": node.WEIGHTS, "config": node.CONFIG or None}
    if node.TEACHER == "ema":
        if any(of_file.values()):
            raise ValueError(
                f"MODEL.DISTILLATION.WEIGHTS is {node.WEIGHTS!r} and CONFIG {node.CONFIG!r}, and "
                'nothing reads them with TEACHER "ema"; expected "" and ""'
            )
        of_file = {}
    common = {"normalised": node.NORMALISED}
    terms: dict[str, tuple[Callable[..., nn.Module], float, dict[str, Any]]] = {
        "ld_loss": (LocalizationDistillation, node.LD_WEIGHT, {}),
        "ld_vlr_loss": (LocalizationDistillation, node.LD_VLR_WEIGHT, {"region": ValuableRegion()}),
        "kd_loss": (ClassDistillation, node.KD_WEIGHT, {}),
        "imitation_loss": (FeatureImitation, node.IMITATION_WEIGHT, {}),
    }
    criterion = DistillationCriterion(
        **{name: getattr(arguments["criterion"], name) for name in _ARGUMENTS},
        **{
            name: term(weight=weight, **more, **common)
            for name, (term, weight, more) in terms.items()
            if weight
        },
    )
    teacher = locate(_TEACHERS[node.TEACHER])(**of_file)
    return {**arguments, "criterion": criterion, "teacher": teacher}
