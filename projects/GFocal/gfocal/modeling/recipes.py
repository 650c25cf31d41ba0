"""Names of parts that belong together. yacs keys look them up.

A recipe maps slots to LazyCalls; ``pick`` copies one, so that a config can change its copy. A part
that is not in a table needs no entry: pass it in a LazyConfig.
"""

import copy
import inspect
import numbers
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.utils.registry import locate

from .criterion import GFLCriterion, one_more_an_image
from .matchers import (
    ATSSMatcher,
    DynamicATSSMatcher,
    FCOSMatcher,
    FoveaMatcher,
    SimOTAMatcher,
    TaskAlignedMatcher,
)
from .quality import (
    DistributionGuidedQualityPredictor,
    NoQuality,
    QualityBranch,
    centerness,
    localization_iou,
    matched_quality,
    max_class_score,
    uniform,
)
from .representations import DiracDistance, GaussianDistance, GeneralDistribution, LogDistance
from .suppression import GaussianSoftNMS, HardNMS, LinearSoftNMS
from .terms import (
    DistributionFocalLoss,
    FocalLoss,
    GaussianNLLLoss,
    GIoULoss,
    LogSmoothL1Loss,
    QualityBranchLoss,
    QualityFocalLoss,
)
from .yacs_numbers import DEFAULTS, NUMBERS, Number

__all__ = [
    "BOX",
    "DEFAULTS",
    "MATCHER",
    "NUMBERS",
    "QUALITY",
    "SUPPRESSION",
    "Number",
    "from_yacs",
    "pick",
    "tower_width",
    "use",
]


def tower_width(conv_dims: Sequence[int]) -> int:
    """The number of output channels of a tower of the head. A part's LazyCall calls it, because an
    interpolation cannot count from the end of a list.

    Raises:
        ValueError: there is no tower.
    """
    if not conv_dims:
        raise ValueError("conv_dims is []; expected at least one width")
    return conv_dims[-1]


# The width of the head around a quality branch, also after overrides of conv_dims.
_HEAD_WIDTH = L(tower_width)(conv_dims="${...conv_dims}")

# MODEL.GFL.QUALITY: how the quality of a box is estimated and supervised (v1, Table 1a, Fig. 6).
# The measure of quality also weights the losses of boxes (the end of Sec. 3).
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
    "qfl_uniform": {  # on other detectors, whose boxes keep their weights (Table 1b)
        "quality_predictor": L(NoQuality)(),
        "cls_loss": L(QualityFocalLoss)(),
        "box_weight": uniform,
    },
}

_DFL = {"box_loss": L(GIoULoss)(), "dist_loss": L(DistributionFocalLoss)()}

# MODEL.GFL.BOX_REPRESENTATION: how a box is represented and trained (v1, Table 2a). A Gaussian is
# trained by its likelihood alone, as in the paper (App. A, Table 5): sides, not boxes. So is a
# logarithm: FoveaBox's smooth L1.
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
    "log": {
        "box_representation": L(LogDistance)(),
        "box_loss": L(LogSmoothL1Loss)(),
        "dist_loss": None,
    },
    "general": {
        "box_representation": L(GeneralDistribution)(),
        "box_loss": L(GIoULoss)(),
        "dist_loss": None,
    },
    "general_dfl": {"box_representation": L(GeneralDistribution)(), **_DFL},
    # Bins that get wider with the distance; and some on the other side, as PP-YOLOE has them.
    "geometric_dfl": {"box_representation": L(GeneralDistribution.geometric)(), **_DFL},
    "signed_dfl": {"box_representation": L(GeneralDistribution.signed)(low=-2, high=17), **_DFL},
}

# MODEL.GFL.MATCHER: which locations are positive for which box, and what belongs to it. Where a
# location lies in its cell of stride x stride, in strides: FCOS has it in the centre, the released
# models at the corner. FoveaBox takes locations on the padding for background, and has a divisor
# of its own for the loss of the classes. TOOD's matcher gives the label of QFL, see _label_with.
MATCHER: dict[str, dict[str, Any]] = {
    "atss": {"matcher": L(ATSSMatcher)(), "anchor_offset": 0.0},
    "dynamic_atss": {"matcher": L(DynamicATSSMatcher)(), "anchor_offset": 0.0},
    "task_aligned": {
        "matcher": L(TaskAlignedMatcher)(),
        "anchor_offset": 0.0,
        "label": matched_quality,
    },
    "simota": {"matcher": L(SimOTAMatcher)(), "anchor_offset": 0.0},
    "fcos": {"matcher": L(FCOSMatcher)(), "anchor_offset": 0.5},
    "fovea": {
        "matcher": L(FoveaMatcher)(),
        "anchor_offset": 0.5,
        "ignore_padding": False,
        "cls_divisor": one_more_an_image,
    },
}

# MODEL.GFL.NMS_TYPE: what happens to boxes that overlap a better one.
SUPPRESSION: dict[str, dict[str, Any]] = {
    "hard": {"suppression": L(HardNMS)()},
    "soft_linear": {"suppression": L(LinearSoftNMS)()},
    "soft_gaussian": {"suppression": L(GaussianSoftNMS)()},
}

# Keys of MODEL.GFL that name an entry of a table.
_TABLES = {
    "QUALITY": QUALITY,
    "BOX_REPRESENTATION": BOX,
    "MATCHER": MATCHER,
    "NMS_TYPE": SUPPRESSION,
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
    """Replace parts of a LazyConfig's model by those of recipes, with the papers' numbers.

    Args:
        model: LazyCall of GFL.
        quality: entry of QUALITY: sets the head's quality predictor, the criterion's losses of
            class and quality, and its weight of boxes. None leaves them, here and below.
        box: entry of BOX: sets the head's box representation and the criterion's losses of boxes.
        matcher: entry of MATCHER: sets the matcher, the anchor generator's offset, the detector's
            ``ignore_padding`` and the criterion's ``cls_divisor``. With "task_aligned" and a
            quality of QFL, also before or after it, QFL's label, the weight of the boxes and the
            divisor are the matcher's soft labels.

    Raises:
        ValueError: if there is no such entry; or the model's labels came from "task_aligned", and
            ``quality`` does not say from where they come now.
    """
    label = _label_of(model.matcher)
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
        parts = pick(MATCHER, matcher, "matcher")
        applied = label is not None and model.criterion.get("box_weight") is label
        if applied and "label" not in parts:
            raise ValueError(
                f"the model's labels come from its matcher, and {matcher!r} gives none; expected a "
                "quality too, as in use(model, quality='dgqp', matcher='atss')"
            )
        label = parts.get("label")
        model.matcher = parts["matcher"]
        model.anchor_generator.offset = parts["anchor_offset"]
        for node, name in ((model, "ignore_padding"), (model.criterion, "cls_divisor")):
            node.pop(name, None)
            if name in parts:
                node[name] = parts[name]
    _label_with(label, model.criterion)


def _label_of(matcher: Any) -> Any:
    """The measure that the recipe of a LazyCall brings, or None."""
    target = _target_of(matcher)
    return next(
        (x.get("label") for x in MATCHER.values() if target is _target_of(x["matcher"])), None
    )


def _label_with(label: Any, criterion: Any) -> None:
    """Where the loss of the classes is QFL, the measure ``label`` gives its label and the weight of
    the boxes, and its sum divides all losses (TOOD, Sec. 3.3)."""
    if label is None:
        return
    if "measure" in _arguments(criterion["cls_loss"]):
        criterion["cls_loss"]["measure"] = criterion["box_weight"] = label
        criterion["cls_divisor"] = None
    else:
        criterion.pop("cls_divisor", None)


def from_yacs(gfl) -> dict[str, Any]:
    """The parts that a MODEL.GFL node (config/yacs.py) names, instantiated.

    Returns:
        "box_representation", "quality_predictor", "matcher", "anchor_offset" (in strides),
        "ignore_padding", "suppression" and "criterion".

    Raises:
        ValueError: a name that is in no table, an offset that is none, or a number that is not the
            default and that no chosen part reads.
    """
    parts: dict[str, Any] = {}
    for choice, table in _TABLES.items():
        parts |= pick(table, gfl[choice], f"MODEL.GFL.{choice}")
    if gfl.ANCHOR_OFFSET is not None:
        parts["anchor_offset"] = _checked_offset(gfl.ANCHOR_OFFSET)
    if "in_channels" in _arguments(parts["quality_predictor"]):
        parts["quality_predictor"].in_channels = gfl.CONV_DIM
    for number in NUMBERS:
        _set(parts, number, gfl)
    _label_with(parts.pop("label", None), parts)
    names = ("box_representation", "quality_predictor", "matcher", "anchor_offset", "suppression")
    ret = {name: instantiate(parts.pop(name)) for name in names}
    ret["ignore_padding"] = parts.pop("ignore_padding", True)
    return {**ret, "criterion": instantiate(L(GFLCriterion)(**parts))}


def _checked_offset(offset: Any) -> float:
    is_number = isinstance(offset, numbers.Real) and not isinstance(offset, bool)
    if not (is_number and 0 <= offset < 1):
        raise ValueError(
            f"MODEL.GFL.ANCHOR_OFFSET is {offset!r}; expected a number of strides in [0, 1), or "
            "None for the matcher's"
        )
    return offset


def _set(parts: Mapping[str, Any], number: Number, gfl) -> None:
    key, default, choice, slot, argument, names = number
    value = attrgetter(key)(gfl)
    readers = [name for name, x in _TABLES[choice].items() if argument in _arguments(x[slot])]
    readers = [name for name in readers if not names or name in names]
    if gfl[choice] in readers:
        parts[slot][argument] = value
    elif value != default:
        raise ValueError(
            f"MODEL.GFL.{key} is {value!r}, and with MODEL.GFL.{choice} {gfl[choice]!r} nothing "
            f"reads it; expected {default!r}, or a {choice} that reads it: "
            f"{', '.join(map(repr, readers))}"
        )


def _arguments(part: Any) -> Sequence[str]:
    """Names of a LazyCall's arguments; empty without a part."""
    if part is None:
        return ()
    return [*inspect.signature(_target_of(part)).parameters]


def _target_of(part: Any) -> Any:
    target = part["_target_"]
    return locate(target) if isinstance(target, str) else target
