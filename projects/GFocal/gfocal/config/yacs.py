"""The yacs side: ``add_gfocal_config`` adds the keys that the detectors' ``from_config`` read."""

import copy
from typing import Any

from detectron2.config import CfgNode as CN
from detectron2.config import defaults

# These imports register builders by name, so that a yacs config finds them.
from .. import backbones, detectors  # noqa: F401
from ..modeling.recipes import DEFAULTS
from .options import OPTIONS
from .yacs_centernet import centernet_node
from .yacs_cornernet import cornernet_node
from .yacs_distillation import distillation_node
from .yacs_ssd import ssd_node, vgg_node

__all__ = ["NORMS", "add_gfocal_config"]

# Keys that Detectron2's get_norm reads, if a config has them.
NORMS = (
    "MODEL.GFL.NORM",
    "MODEL.VGG.NORM",
    "MODEL.CENTERNET.NECK.NORM",
    "MODEL.CORNERNET.NORM",
    "MODEL.CORNERNET.HOURGLASS.NORM",
)


def add_gfocal_config(cfg: CN | None = None) -> None:
    """Add the keys of GFL, with GFLV2's values, to a Detectron2 config.

    A config then needs MODEL.META_ARCHITECTURE "GFL" and a backbone, e.g. MODEL.BACKBONE.NAME
    "build_gfl_resnet_fpn_backbone".

    Args:
        cfg: of Detectron2's ``get_cfg()``. Without it the keys are added to Detectron2's defaults:
            every later ``get_cfg()`` of this process has them, also those that a tool calls.
    """
    if cfg is None:
        cfg = defaults._C  # get_cfg() answers copies of it
    for option in OPTIONS:
        if option.added and option.yacs is not None:
            _add(cfg, option.yacs, option.default)

    # Annotations with iscrowd=1: "drop" them, or "ignore" the background inside their boxes.
    cfg.INPUT.CROWDS = "drop"

    # "default" are Detectron2's: MIN_SIZE_TRAIN and so on. Or "ssd", "centernet", "cornernet", see
    # gfocal/data/pipelines.py, with square training images of SIZE pixels; 0: 512, 512, 511.
    cfg.INPUT.AUGMENTATIONS = "default"
    cfg.INPUT.SIZE = 0

    # Look at the header of each image file first, and whether the boxes have another format.
    cfg.DATASETS.CHECK = True

    cfg.MODEL.GFL = _gfl()
    cfg.MODEL.CENTERNET = centernet_node()
    cfg.MODEL.CORNERNET = cornernet_node()
    cfg.MODEL.DISTILLATION = distillation_node()
    cfg.MODEL.SSD, cfg.MODEL.VGG = ssd_node(), vgg_node()

    # The map that P6 is made of: "p5", or "res5" for FoveaBox and RetinaNet.
    cfg.MODEL.FPN.TOP_IN_FEATURE = "p5"

    # Keys of build_gfl_res2net_fpn_backbone that MODEL.RESNETS lacks. The 3x3 convolutions have
    # SCALES parts, each BASE_WIDTH channels wide in res2 ("26w 4s").
    cfg.MODEL.RES2NET = CN()
    cfg.MODEL.RES2NET.SCALES = 4
    cfg.MODEL.RES2NET.BASE_WIDTH = 26


def _gfl() -> CN:
    gfl = CN()
    gfl.NUM_CLASSES = 80
    # Maps of the backbone that the head sees, finest first.
    gfl.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]

    # Anchors: one square a location, of side ANCHOR_SCALE * stride, at ((x + offset) * stride,
    # (y + offset) * stride). None is the offset that belongs to the matcher. The released models
    # have 0.0. MODEL.ANCHOR_GENERATOR is not read.
    gfl.ANCHOR_SCALE = 8
    gfl.ANCHOR_OFFSET = None

    # Head: NUM_CONVS 3x3 convolutions of width CONV_DIM in each of its two towers.
    gfl.NUM_CONVS = 4
    gfl.CONV_DIM = 256
    gfl.NORM = "GN"
    # [channels, kernel size] of each convolution of the class tower, if it is another one.
    gfl.CLS_CONVS = []
    # FoveaBox's FeatureAlign before the class tower, with so many groups of offsets; 0 for none.
    gfl.FEATURE_ALIGN_GROUPS = 0
    # A trained factor of the box channels of each level.
    gfl.LEVEL_SCALES = True
    # Class score of an untrained head.
    gfl.PRIOR_PROB = 0.01

    # Which parts: names in gfocal/modeling/recipes.py.
    gfl.QUALITY = "dgqp"  # "qfl" is GFLV1
    gfl.BOX_REPRESENTATION = "general_dfl"
    gfl.MATCHER = "atss"

    # The numbers of the parts, and of inference.
    for key, default in DEFAULTS.items():
        _add(gfl, key, copy.copy(default))

    # Iterations between looks at the targets (gfocal/modeling/statistics.py); 0 for none.
    gfl.STATISTICS_PERIOD = 20
    return gfl


def _add(node: CN, key: str, value: Any) -> None:
    *groups, name = key.split(".")
    for group in groups:
        node = node.setdefault(group, CN())
    node[name] = value
