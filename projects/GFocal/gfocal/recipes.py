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

from .criterion import GFLCriterion
from .matchers import ATSSMatcher, FCOSMatcher
from .quality import (
    DistributionGuidedQualityPredictor,
    NoQuality,
    QualityBranch,
    centerness,
    localization_iou,
    max_class_score,
    uniform,
)
from .representations import DiracDistance, GaussianDistance, GeneralDistribution
from .terms import (
    DistributionFocalLoss,
    FocalLoss,
    GaussianNLLLoss,
    GIoULoss,
    QualityBranchLoss,
    QualityFocalLoss,
)

__all__ = ["BOX", "MATCHER", "QUALITY", "from_yacs", "pick", "use"]

# The width of the head that a quality branch is part of.
_HEAD_WIDTH = "${..conv_dims.0}"

# MODEL.GFL.QUALITY: how the quality of a box is estimated and supervised (v1, Table 1a, Fig. 6).
# What measures quality also weights the losses of boxes (the end of Sec. 3).
QUALITY: dict[str, dict[str, Any]] = {
    "none": {
        "quality_predictor": L(NoQuality)(),
        "cls_loss": L(FocalLoss)(),
        "box_weight": uniform,
    },
    "centerness_branch": {  # FCOS and ATSS as published
        "quality_predictor": L(QualityBranch)(in_channels=_HEAD_WIDTH),
        "cls_loss": L(FocalLoss)(),
        "quality_loss": L(QualityBranchLoss)(measure=centerness),
        "box_weight": centerness,
    },
    "iou_branch": {
        "quality_predictor": L(QualityBranch)(in_channels=_HEAD_WIDTH),
        "cls_loss": L(FocalLoss)(),
        "quality_loss": L(QualityBranchLoss)(measure=localization_iou),
        "box_weight": localization_iou,
    },
    "centerness_guided": {
        "quality_predictor": L(NoQuality)(),
        "cls_loss": L(FocalLoss)(positive_weight=centerness),
        "box_weight": centerness,
    },
    "iou_guided": {
        "quality_predictor": L(NoQuality)(),
        "cls_loss": L(FocalLoss)(positive_weight=localization_iou),
        "box_weight": localization_iou,
    },
    "qfl": {  # GFLV1: the class score is the quality
        "quality_predictor": L(NoQuality)(),
        "cls_loss": L(QualityFocalLoss)(),
        "box_weight": max_class_score,
    },
    "dgqp": {  # GFLV2: the shape of the distributions tells
        "quality_predictor": L(DistributionGuidedQualityPredictor)(),
        "cls_loss": L(QualityFocalLoss)(),
        "box_weight": max_class_score,
    },
    "dgqp_branch": {  # GFLV2's predictor without QFL, trained as an IoU branch is
        "quality_predictor": L(DistributionGuidedQualityPredictor)(),
        "cls_loss": L(FocalLoss)(),
        "quality_loss": L(QualityBranchLoss)(measure=localization_iou),
        "box_weight": localization_iou,
    },
}

# MODEL.GFL.BOX_REPRESENTATION: how a box is represented and learned (v1, Table 2a). A Gaussian is
# learned by its likelihood alone, as the paper has it (App. A, Table 5): sides, not boxes.
BOX: dict[str, dict[str, Any]] = {
    "dirac": {
        "box_representation": L(DiracDistance)(),
        "box_loss": L(GIoULoss)(),
        "dist_loss": None,
    },
    "gaussian": {
        "box_representation": L(GaussianDistance)(),
        "box_loss": L(GaussianNLLLoss)(weight=2.0),
        "dist_loss": None,
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


def use(
    model: Any, *, quality: str | None = None, box: str | None = None, matcher: str | None = None
) -> None:
    """Replace parts of a LazyConfig's model by those of recipes, whose numbers are the papers'.

    Args:
        model: LazyCall of GFL.
        quality: entry of QUALITY: sets the head's quality predictor, the criterion's losses of
            class and quality, and its weight of boxes. None leaves them, here and below.
        box: entry of BOX: sets the head's box representation and the criterion's losses of boxes.
        matcher: entry of MATCHER. FCOS's locations are the centres of the cells: with it, set
            ``model.anchor_generator.offset = 0.5`` too.

    Raises:
        ValueError: if there is no such entry.
    """
    if quality is not None:
        parts = {"quality_loss": None, **pick(QUALITY, quality, "quality")}
        model.head.quality_predictor = parts.pop("quality_predictor")
        for name, part in parts.items():
            model.criterion[name] = part
    if box is not None:
        parts = pick(BOX, box, "box")
        model.head.box_representation = parts.pop("box_representation")
        for name, part in parts.items():
            model.criterion[name] = part
    if matcher is not None:
        model.matcher = pick(MATCHER, matcher, "matcher")["matcher"]


def from_yacs(gfl) -> dict[str, Any]:
    """The parts that a MODEL.GFL node (config.py) names, instantiated.

    A number applies where the chosen part has such an argument (REG_MAX, say, is read by the
    representations that have bins).
    """
    quality = pick(QUALITY, gfl.QUALITY, "MODEL.GFL.QUALITY")
    box = pick(BOX, gfl.BOX_REPRESENTATION, "MODEL.GFL.BOX_REPRESENTATION")
    matcher = pick(MATCHER, gfl.MATCHER, "MODEL.GFL.MATCHER")
    _set(matcher["matcher"], topk=gfl.ATSS_TOPK, match_every_box=gfl.ATSS_MATCH_EVERY_BOX)
    _set(
        quality["quality_predictor"],
        topk=gfl.DGQP.TOPK,
        add_mean=gfl.DGQP.ADD_MEAN,
        hidden_dim=gfl.DGQP.HIDDEN_DIM,
        in_channels=gfl.CONV_DIM,
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
