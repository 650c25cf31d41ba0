"""The yacs side: ``add_gfocal_config`` adds MODEL.GFL, which ``GFL.from_config`` reads."""

from detectron2.config import CfgNode as CN

# What registers builders by name, so that a yacs config finds them.
from . import backbone, meta_arch, retinanet  # noqa: F401

__all__ = ["add_gfocal_config"]


def add_gfocal_config(cfg: CN) -> None:
    """Add the keys of GFL, with GFLV2's values, to a Detectron2 config.

    A config then needs MODEL.META_ARCHITECTURE "GFL" and a backbone, e.g. MODEL.BACKBONE.NAME
    "build_gfl_resnet_fpn_backbone".
    """
    # Train with the convolutions in the channels_last memory format.
    cfg.MODEL.CHANNELS_LAST = False

    # Algorithms that give the same bits again; with SEED from 0 on the whole training does.
    cfg.DETERMINISTIC = False
    # Averaged weights, evaluated and saved beside the raw ones: what a step keeps, e.g. 0.9998.
    cfg.SOLVER.EMA_DECAY = 0.0
    # At each evaluation also the losses on the test images.
    cfg.TEST.VALIDATION_LOSS = False
    # Keep model_best.pth, e.g. by "bbox/AP"; BEST_MODE "max" or "min" is better.
    cfg.TEST.BEST_METRIC = ""
    cfg.TEST.BEST_MODE = "max"
    # End the training after so many evaluations without a better BEST_METRIC; 0 for never.
    cfg.TEST.EARLY_STOP_PATIENCE = 0

    # Annotations with iscrowd=1: "drop" them, or "ignore" the background inside their boxes.
    cfg.INPUT.CROWDS = "drop"

    gfl = cfg.MODEL.GFL = CN()

    gfl.NUM_CLASSES = 80
    # Maps of the backbone that the head sees, finest first.
    gfl.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]

    # Anchors: one square a location, of side ANCHOR_SCALE * stride, at ((x + offset) * stride,
    # (y + offset) * stride). The released models have offset 0. MODEL.ANCHOR_GENERATOR is not read.
    gfl.ANCHOR_SCALE = 8
    gfl.ANCHOR_OFFSET = 0.0

    # Head: NUM_CONVS 3x3 convolutions of width CONV_DIM in each of its two towers.
    gfl.NUM_CONVS = 4
    gfl.CONV_DIM = 256
    gfl.NORM = "GN"
    # Class score of an untrained head.
    gfl.PRIOR_PROB = 0.01

    # Which parts: names in gfocal/recipes.py.
    gfl.QUALITY = "dgqp"  # "qfl" is GFLV1
    gfl.BOX_REPRESENTATION = "general_dfl"
    gfl.MATCHER = "atss"  # with "fcos" set ANCHOR_OFFSET 0.5: its locations are cells' centres

    # n and delta of the paper: bins 0..REG_MAX, each BIN_WIDTH strides wide.
    gfl.REG_MAX = 16
    gfl.BIN_WIDTH = 1.0

    # Distribution-Guided Quality Predictor (GFLV2 Sec. 3.2).
    gfl.DGQP = CN()
    gfl.DGQP.TOPK = 4
    gfl.DGQP.ADD_MEAN = True
    gfl.DGQP.HIDDEN_DIM = 64

    # Nearest anchors a level that are candidates of a box.
    gfl.ATSS_TOPK = 9
    # Give a box without any positive its best candidate (not in the paper).
    gfl.ATSS_MATCH_EVERY_BOX = False

    # Losses.
    gfl.QFL_BETA = 2.0
    gfl.LOSS_CLS_WEIGHT = 1.0
    gfl.LOSS_BOX_REG_WEIGHT = 2.0
    gfl.LOSS_DFL_WEIGHT = 0.25

    # Iterations between looks at the targets (gfocal/statistics.py); 0 for none.
    gfl.STATISTICS_PERIOD = 20

    # Inference; at most TEST.DETECTIONS_PER_IMAGE detections.
    gfl.SCORE_THRESH_TEST = 0.05
    gfl.TOPK_CANDIDATES_TEST = 1000
    gfl.NMS_THRESH_TEST = 0.6

    # build_gfl_res2net_fpn_backbone: what MODEL.RESNETS has no key for. SCALES parts of the 3x3
    # convolutions, each BASE_WIDTH channels wide in res2 ("26w 4s").
    cfg.MODEL.RES2NET = CN()
    cfg.MODEL.RES2NET.SCALES = 4
    cfg.MODEL.RES2NET.BASE_WIDTH = 26
