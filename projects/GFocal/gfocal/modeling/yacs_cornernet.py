"""The arguments of CornerNet in a yacs config: MODEL.CORNERNET."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_backbone

from .corner_head import CornerHead
from .corner_losses import CornerCriterion
from .suppression import GaussianSoftNMS
from .yacs_keys import class_names_of, threshold_of_tools

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
    of_tools = threshold_of_tools(cfg)
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
        "num_classes": node.NUM_CLASSES,
        "criterion": CornerCriterion(
            offset_weight=node.LOSS_OFFSET_WEIGHT,
            pull_weight=node.LOSS_PULL_WEIGHT,
            push_weight=node.LOSS_PUSH_WEIGHT,
        ),
        "num_corners": node.NUM_CORNERS_TEST,
        "max_distance": node.MAX_DISTANCE_TEST,
        "test_flip": node.FLIP_TEST,
        "test_score_thresh": node.SCORE_THRESH_TEST if of_tools is None else of_tools,
        "test_topk_candidates": node.TOPK_CANDIDATES_TEST,
        "suppression": GaussianSoftNMS(node.NMS_SIGMA, class_shift=True),
        "class_names": class_names_of(cfg),
        "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "vis_period": cfg.VIS_PERIOD,
        "statistics_period": node.STATISTICS_PERIOD,
        "input_format": cfg.INPUT.FORMAT,
    }
