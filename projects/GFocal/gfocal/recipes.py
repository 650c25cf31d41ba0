"""Names of parts that belong together: what the yacs keys look up.

A recipe maps slots to LazyCalls; ``pick`` copies one, so that a config can change its copy. A part
that is not in a table needs no entry: pass it in a LazyConfig.
"""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.utils.registry import locate

from .box_distribution import DiracDistance, GaussianDistance, GeneralDistribution
from .criterion import (
    DistributionFocalLoss,
    GaussianNLLLoss,
    GFLCriterion,
    GIoULoss,
    QualityFocalLoss,
)
from .matcher import ATSSMatcher, FCOSMatcher
from .quality import DistributionGuidedQualityPredictor, NoQuality

__all__ = ["BOX", "MATCHER", "QUALITY", "from_yacs", "pick"]

# MODEL.GFL.QUALITY: how the quality of a box is estimated and supervised
QUALITY: dict[str, dict[str, Any]] = {
    "qfl": {  # GFLV1: the class score is the quality
        "quality_predictor": L(NoQuality)(),
        "cls_loss": L(QualityFocalLoss)(),
    },
    "dgqp": {  # GFLV2: the shape of the distributions tells
        "quality_predictor": L(DistributionGuidedQualityPredictor)(),
        "cls_loss": L(QualityFocalLoss)(),
    },
}

# MODEL.GFL.BOX_REPRESENTATION: how a box is represented and learned
BOX: dict[str, dict[str, Any]] = {
    "dirac": {
        "box_representation": L(DiracDistance)(),
        "box_loss": L(GIoULoss)(),
        "dist_loss": None,
    },
    "gaussian": {
        "box_representation": L(GaussianDistance)(),
        "box_loss": L(GIoULoss)(),
        "dist_loss": L(GaussianNLLLoss)(),
    },
    "general": {
        "box_representation": L(GeneralDistribution)(),
        "box_loss": L(GIoULoss)(),
        "dist_loss": None,
    },
    "general_dfl": {
        "box_representation": L(GeneralDistribution)(),
        "box_loss": L(GIoULoss)(),
        "dist_loss": L(DistributionFocalLoss)(),
    },
}

# MODEL.GFL.MATCHER: which locations learn which box
MATCHER: dict[str, dict[str, Any]] = {
    "atss": {"matcher": L(ATSSMatcher)()},
    "fcos": {"matcher": L(FCOSMatcher)()},
}


def pick(table: Mapping[str, dict[str, Any]], name: str, key: str) -> dict[str, Any]:
    """A copy of one recipe.

    Args:
        table: QUALITY, BOX or MATCHER.
        name: its entry.
        key: the config key that asked, for the error message.

    Raises:
        ValueError: if there is no such entry; the message lists those there are.
    """
    if name not in table:
        raise ValueError(
            f"{key} is {name!r}; expected one of {', '.join(map(repr, sorted(table)))}"
        )
    return copy.deepcopy(table[name])


def from_yacs(gfl) -> dict[str, Any]:
    """The parts that a MODEL.GFL node (config.py) names, instantiated.

    A number applies where the chosen part has such an argument (REG_MAX, say, is read by the
    representations that have bins).
    """
    quality = pick(QUALITY, gfl.QUALITY, "MODEL.GFL.QUALITY")
    box = pick(BOX, gfl.BOX_REPRESENTATION, "MODEL.GFL.BOX_REPRESENTATION")
    matcher = pick(MATCHER, gfl.MATCHER, "MODEL.GFL.MATCHER")
    _set(matcher["matcher"], topk=gfl.ATSS_TOPK)
    _set(
        quality["quality_predictor"],
        topk=gfl.DGQP.TOPK,
        add_mean=gfl.DGQP.ADD_MEAN,
        hidden_dim=gfl.DGQP.HIDDEN_DIM,
    )
    _set(quality["cls_loss"], beta=gfl.QFL_BETA, weight=gfl.LOSS_CLS_WEIGHT)
    _set(box["box_representation"], reg_max=gfl.REG_MAX, bin_width=gfl.BIN_WIDTH)
    _set(box["box_loss"], weight=gfl.LOSS_BOX_REG_WEIGHT)
    _set(box["dist_loss"], weight=gfl.LOSS_DFL_WEIGHT)
    return {
        "box_representation": instantiate(box.pop("box_representation")),
        "quality_predictor": instantiate(quality.pop("quality_predictor")),
        "matcher": instantiate(matcher["matcher"]),
        "criterion": instantiate(L(GFLCriterion)(**quality, **box)),
    }


def _set(part, **settings) -> None:
    if part is None:
        return
    target = part["_target_"]
    arguments = inspect.signature(locate(target) if isinstance(target, str) else target).parameters
    part.update({name: value for name, value in settings.items() if name in arguments})
