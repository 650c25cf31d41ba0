"""The arguments of SSD in a yacs config: MODEL.SSD."""

from typing import Any

from detectron2.config import CfgNode, instantiate
from detectron2.config import LazyCall as L
from detectron2.modeling import build_backbone
from detectron2.modeling.box_regression import Box2BoxTransform

from .matchers import MaxIoUMatcher
from .prior_losses import SigmoidQualityFocalLoss, SoftmaxHardNegativeLoss
from .priors import PERCENTS, PriorGenerator, prior_sizes
from .recipes import pick
from .yacs_keys import shared_arguments

__all__ = ["DEFAULTS", "ssd_arguments"]

# MODEL.SSD.CLS_LOSS: names of parts. "qfl" is the paper's Table 1b as we read it, see
# docs/paper_vs_code.md.
CLS_LOSS: dict[str, dict[str, Any]] = {
    "softmax": {"cls_loss": L(SoftmaxHardNegativeLoss)()},
    "qfl": {"cls_loss": L(SigmoidQualityFocalLoss)()},
}

# Keys with a number of a class loss: (its name, the argument, the default).
_NUMBERS: dict[str, tuple[str, str, float]] = {
    "NEGATIVE_RATIO": ("softmax", "negative_ratio", 3.0),
    "QFL_BETA": ("qfl", "beta", 2.0),
    "PRIOR_PROB": ("qfl", "prior_prob", 0.01),
}

# Keys of MODEL.SSD that choose a part or are a number of it, with their defaults.
DEFAULTS = {"CLS_LOSS": "softmax", **{key: number[-1] for key, number in _NUMBERS.items()}}


def ssd_arguments(cfg: CfgNode) -> dict[str, Any]:
    """The arguments of SSD in a yacs config.

    Raises:
        ValueError: the keys do not fit together.
    """
    node = cfg.MODEL.SSD
    backbone = build_backbone(cfg)
    strides = [shape.stride for shape in backbone.output_shape().values()]
    if node.INPUT_SIZE not in PERCENTS:
        raise ValueError(
            f"MODEL.SSD.INPUT_SIZE is {node.INPUT_SIZE}; expected one of {sorted(PERCENTS)}"
        )
    return {
        "backbone": backbone,
        "anchor_generator": PriorGenerator(
            sizes=prior_sizes(node.INPUT_SIZE, len(strides), PERCENTS[node.INPUT_SIZE]),
            aspect_ratios=[[2], *[[2, 3]] * (len(strides) - 3), [2], [2]],
            strides=strides,
        ),
        "matcher": MaxIoUMatcher(),
        "box2box_transform": Box2BoxTransform((10.0, 10.0, 5.0, 5.0)),
        "cls_loss": _cls_loss(node),
        "test_nms_thresh": node.NMS_THRESH_TEST,
        **shared_arguments(cfg, node),
    }


def _cls_loss(node: CfgNode) -> Any:
    """The class loss of a MODEL.SSD node.

    Raises:
        ValueError: a name that is not in the table, or a number that is not the default and that
            the chosen part does not read.
    """
    part = pick(CLS_LOSS, node.CLS_LOSS, "MODEL.SSD.CLS_LOSS")["cls_loss"]
    for key, (reader, argument, default) in _NUMBERS.items():
        if node.CLS_LOSS == reader:
            part[argument] = node[key]
        elif node[key] != default:
            raise ValueError(
                f"MODEL.SSD.{key} is {node[key]!r}, and with MODEL.SSD.CLS_LOSS {node.CLS_LOSS!r} "
                f"nothing reads it; expected {default!r}, or the CLS_LOSS {reader!r}"
            )
    return instantiate(part)
