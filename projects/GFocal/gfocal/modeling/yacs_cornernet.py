"""The arguments of CornerNet in a yacs config: MODEL.CORNERNET."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_backbone

from .corner_head import CornerHead
from .corner_losses import CornerCriterion
from .suppression import GaussianSoftNMS
from .yacs_keys import shared_arguments

__all__ = ["cornernet_arguments"]


def cornernet_arguments(cfg: CfgNode) -> dict[str, Any]:
    """The arguments of CornerNet in a yacs config.

    Raises:
        ValueError: the keys do not fit together.
    """
    node = cfg.MODEL.CORNERNET
    backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    in_features = list(node.IN_FEATURES)
    missing = [name for name in in_features if name not in shapes]
    if missing or not in_features:
        raise ValueError(
            f"MODEL.CORNERNET.IN_FEATURES is {in_features}; expected maps of the backbone: "
            f"{sorted(shapes)}"
        )
    return {
        "backbone": backbone,
        "head": CornerHead(
            in_channels=shapes[in_features[0]].channels,
            num_classes=node.NUM_CLASSES,
            num_stacks=len(in_features),
            pool_channels=node.POOL_CHANNELS,
            conv_dim=node.CONV_DIM,
            norm=node.NORM,
            prior_prob=node.PRIOR_PROB,
        ),
        "in_features": in_features,
        "criterion": CornerCriterion(
            offset_weight=node.LOSS_OFFSET_WEIGHT,
            pull_weight=node.LOSS_PULL_WEIGHT,
            push_weight=node.LOSS_PUSH_WEIGHT,
        ),
        "num_corners": node.NUM_CORNERS_TEST,
        "max_distance": node.MAX_DISTANCE_TEST,
        "test_flip": node.FLIP_TEST,
        "suppression": GaussianSoftNMS(node.NMS_SIGMA, class_shift=True),
        **shared_arguments(cfg, node),
    }
