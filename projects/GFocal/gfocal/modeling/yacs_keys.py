"""The yacs keys that a detector reads, and a config that was made without them."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from torch import nn

from . import recipes
from .feature_align import FeatureAlign
from .head import GFLHead
from .settings import UNSET, ScoreThresh

__all__ = [
    "added_keys",
    "dense_arguments",
    "gfl_arguments",
    "shared_arguments",
    "threshold_of_tools",
]


@contextlib.contextmanager
def added_keys() -> Iterator[None]:
    """Code inside it reads keys that ``add_gfocal_config`` adds.

    Raises:
        ValueError: one of them is not there; the message says how it gets there.
    """
    try:
        yield
    except (AttributeError, KeyError) as error:  # of yacs: the name of the key alone
        key = str(error).strip("'")
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", key):
            raise
        raise ValueError(
            f"the config has no {key}: it was made without gfocal.config.add_gfocal_config(cfg), "
            "which must be called before merge_from_file. For a tool that makes the config itself, "
            "call gfocal.add_gfocal_config() without a config before it (docs/clients.md)"
        ) from error


def threshold_of_tools(cfg: Any) -> float | None:
    """The score threshold that a tool has set which knows Detectron2's detectors alone, such as
    Detectron2's demo.py: it sets those of all of them. None: no tool has.

    Raises:
        ValueError: the threshold of one of them alone is changed, which no tool does.
    """
    default = 0.05  # of Detectron2
    name = cfg.MODEL.META_ARCHITECTURE
    retinanet, rcnn = (cfg.MODEL[name].SCORE_THRESH_TEST for name in ("RETINANET", "ROI_HEADS"))
    if retinanet != rcnn:
        raise ValueError(
            f"MODEL.RETINANET.SCORE_THRESH_TEST is {retinanet!r} and MODEL.ROI_HEADS."
            f"SCORE_THRESH_TEST is {rcnn!r}, and {name} reads neither; expected "
            f"MODEL.{name.upper()}.SCORE_THRESH_TEST, or the same in both, as tools set it"
        )
    return None if retinanet == default else retinanet


def gfl_arguments(cfg: CfgNode, deform_conv: Callable[..., nn.Module]) -> dict[str, Any]:
    """The arguments of GFL in a yacs config.

    Args:
        cfg, deform_conv: see :func:`dense_arguments`.

    Raises:
        ValueError: the keys do not fit together.
    """
    gfl, backbone = cfg.MODEL.GFL, build_backbone(cfg)
    return {
        "backbone": backbone,
        **dense_arguments(cfg, backbone.output_shape(), deform_conv),
        "head_in_features": gfl.IN_FEATURES,
        "test_clip_margin": gfl.CLIP_MARGIN_TEST,
        "suppression": recipes.from_yacs(gfl)["suppression"],
        **shared_arguments(cfg, gfl),
        "test_score_thresh": score_thresh(cfg, _thresholds(gfl)),
    }


def dense_arguments(
    cfg: CfgNode, shapes: Mapping[str, ShapeSpec], deform_conv: Callable[..., nn.Module]
) -> dict[str, Any]:
    """Head, anchors, matcher and criterion of MODEL.GFL.

    Args:
        cfg: has the keys of ``add_gfocal_config``.
        shapes: of the backbone's maps.
        deform_conv: makes the deformable convolution of FeatureAlign.

    Raises:
        ValueError: the keys do not fit together.
    """
    gfl = cfg.MODEL.GFL
    missing = [name for name in gfl.IN_FEATURES if name not in shapes]
    if missing:
        raise ValueError(
            f"MODEL.GFL.IN_FEATURES has {missing}; expected maps of the backbone: {sorted(shapes)}"
        )
    levels = [shapes[name] for name in gfl.IN_FEATURES]
    parts = recipes.from_yacs(gfl)
    channels = levels[0].channels
    align = None
    if gfl.FEATURE_ALIGN_GROUPS:
        conv = deform_conv(channels, channels, kernel_size=3, padding=1, bias=False)
        align = FeatureAlign(conv=conv, groups=gfl.FEATURE_ALIGN_GROUPS)
    head = GFLHead(
        in_channels=channels,
        num_levels=len(levels),
        num_classes=gfl.NUM_CLASSES,
        conv_dims=[gfl.CONV_DIM] * gfl.NUM_CONVS,
        box_representation=parts["box_representation"],
        quality_predictor=parts["quality_predictor"],
        norm=gfl.NORM,
        prior_prob=gfl.PRIOR_PROB,
        level_scales=gfl.LEVEL_SCALES,
        cls_convs=gfl.CLS_CONVS,
        feature_align=align,
    )
    anchor_generator = DefaultAnchorGenerator(
        sizes=[[gfl.ANCHOR_SCALE * shape.stride] for shape in levels],
        aspect_ratios=[1.0],
        strides=[shape.stride for shape in levels],
        offset=parts["anchor_offset"],
    )
    names = ("matcher", "criterion", "ignore_padding")
    return {
        "head": head,
        "anchor_generator": anchor_generator,
        **{name: parts[name] for name in names},
    }


def shared_arguments(cfg: CfgNode, node: CfgNode) -> dict[str, Any]:
    """The arguments that all detectors have.

    Args:
        cfg: a yacs config.
        node: of the detector, e.g. ``cfg.MODEL.SSD``.

    Raises:
        ValueError: see :func:`threshold_of_tools`.
    """
    return {
        "num_classes": node.NUM_CLASSES,
        "test_score_thresh": score_thresh(cfg, node.SCORE_THRESH_TEST),
        "test_topk_candidates": node.TOPK_CANDIDATES_TEST,
        "class_names": _class_names(cfg),
        "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "vis_period": cfg.VIS_PERIOD,
        "statistics_period": node.STATISTICS_PERIOD,
        "input_format": cfg.INPUT.FORMAT,
    }


def score_thresh(cfg: CfgNode, own: ScoreThresh) -> ScoreThresh:
    """The score threshold of a detector: its own, unless a tool has set one."""
    of_tools = threshold_of_tools(cfg)
    return own if of_tools is None else of_tools


def _class_names(cfg) -> Sequence[str]:
    """The class names of the first dataset of a yacs config that has some."""
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        names = name in MetadataCatalog.list() and MetadataCatalog.get(name).get("thing_classes")
        if names:
            return names
    return UNSET


def _thresholds(gfl) -> ScoreThresh:
    """The score thresholds of a MODEL.GFL node: SCORE_THRESH_TEST, and SCORE_THRESH_PER_CLASS if
    that has any."""
    per_class = gfl.SCORE_THRESH_PER_CLASS
    if not per_class:
        return gfl.SCORE_THRESH_TEST
    if not isinstance(per_class[0], Sequence):
        return per_class
    return {"default": gfl.SCORE_THRESH_TEST, **dict(per_class)}
