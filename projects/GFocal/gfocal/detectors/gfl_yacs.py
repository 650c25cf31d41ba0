"""The yacs way to GFL: from keys to parts. See config/yacs.py for the keys."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from ..modeling import recipes
from ..modeling.head import GFLHead
from ..modeling.settings import UNSET
from ..modeling.yacs_keys import threshold_of_tools

__all__ = ["gfl_arguments"]


def gfl_arguments(cfg: CfgNode) -> dict[str, Any]:
    """The arguments of GFL in a yacs config.

    Raises:
        ValueError: the keys do not fit together.
    """
    gfl = cfg.MODEL.GFL
    backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    missing = [name for name in gfl.IN_FEATURES if name not in shapes]
    if missing:
        raise ValueError(
            f"MODEL.GFL.IN_FEATURES has {missing}; expected maps of the backbone: {sorted(shapes)}"
        )
    shapes = [shapes[name] for name in gfl.IN_FEATURES]
    parts = recipes.from_yacs(gfl)
    of_tools = threshold_of_tools(cfg)
    return {
        "backbone": backbone,
        "head": GFLHead(
            in_channels=shapes[0].channels,
            num_levels=len(shapes),
            num_classes=gfl.NUM_CLASSES,
            conv_dims=[gfl.CONV_DIM] * gfl.NUM_CONVS,
            box_representation=parts["box_representation"],
            quality_predictor=parts["quality_predictor"],
            norm=gfl.NORM,
            prior_prob=gfl.PRIOR_PROB,
        ),
        "head_in_features": gfl.IN_FEATURES,
        "anchor_generator": DefaultAnchorGenerator(
            sizes=[[gfl.ANCHOR_SCALE * shape.stride] for shape in shapes],
            aspect_ratios=[1.0],
            strides=[shape.stride for shape in shapes],
            offset=parts["anchor_offset"],
        ),
        "matcher": parts["matcher"],
        "criterion": parts["criterion"],
        "num_classes": gfl.NUM_CLASSES,
        "test_score_thresh": recipes.score_thresh(gfl) if of_tools is None else of_tools,
        "test_topk_candidates": gfl.TOPK_CANDIDATES_TEST,
        "suppression": parts["suppression"],
        "class_names": _class_names(cfg),
        "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "vis_period": cfg.VIS_PERIOD,
        "statistics_period": gfl.STATISTICS_PERIOD,
        "input_format": cfg.INPUT.FORMAT,
    }


def _class_names(cfg) -> Sequence[str]:
    """The class names of the first dataset of a yacs config that has some."""
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        names = name in MetadataCatalog.list() and MetadataCatalog.get(name).get("thing_classes")
        if names:
            return names
    return UNSET
