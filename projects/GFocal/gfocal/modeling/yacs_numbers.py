"""The keys of MODEL.GFL that are numbers: of the parts that recipes.py names, and of inference."""

from typing import Any, NamedTuple

__all__ = ["DEFAULTS", "NUMBERS", "Number"]


class Number(NamedTuple):
    """A yacs key. Its value is an argument of those chosen parts that have this argument.

    Attributes:
        key: below MODEL.GFL.
        default: its value if a config does not set it.
        choice: the key of MODEL.GFL that chooses the part.
        slot: the part's slot in the recipe.
        argument: name of the part's argument.
        names: the choices that read it; () for all whose part has the argument.
    """

    key: str
    default: Any
    choice: str
    slot: str
    argument: str
    names: tuple[str, ...] = ()


NUMBERS = (
    # n and delta of the paper: bins 0..REG_MAX, each BIN_WIDTH strides wide.
    Number("REG_MAX", 16, "BOX_REPRESENTATION", "box_representation", "reg_max"),
    Number("BIN_WIDTH", 1.0, "BOX_REPRESENTATION", "box_representation", "bin_width"),
    # Distribution-Guided Quality Predictor (GFLV2 Sec. 3.2).
    Number("DGQP.TOPK", 4, "QUALITY", "quality_predictor", "topk"),
    Number("DGQP.ADD_MEAN", True, "QUALITY", "quality_predictor", "add_mean"),
    Number("DGQP.HIDDEN_DIM", 64, "QUALITY", "quality_predictor", "hidden_dim"),
    # Number of candidates of a box on each level: the nearest anchors.
    Number("ATSS_TOPK", 9, "MATCHER", "matcher", "topk", ("atss", "dynamic_atss")),
    # Give a box without any positive its best candidate (not in the paper).
    Number("ATSS_MATCH_EVERY_BOX", False, "MATCHER", "matcher", "match_every_box"),
    # DDOD: share of the IoU, the rest is the score's.
    Number("DYNAMIC_ATSS_ALPHA", 0.8, "MATCHER", "matcher", "alpha", ("dynamic_atss",)),
    # Task-aligned assignment (TOOD): score^alpha * IoU^beta, after so many iterations of ATSS.
    Number("TAL.TOPK", 13, "MATCHER", "matcher", "topk", ("task_aligned",)),
    Number("TAL.ALPHA", 1.0, "MATCHER", "matcher", "alpha", ("task_aligned",)),
    Number("TAL.BETA", 6.0, "MATCHER", "matcher", "beta"),
    Number("TAL.WARMUP_ITERS", 0, "MATCHER", "matcher", "warmup_iters"),
    # SimOTA (YOLOX).
    Number("SIMOTA.CENTER_RADIUS", 2.5, "MATCHER", "matcher", "center_radius"),
    Number("SIMOTA.CANDIDATE_TOPK", 10, "MATCHER", "matcher", "candidate_topk"),
    Number("SIMOTA.CLS_WEIGHT", 1.0, "MATCHER", "matcher", "cls_weight"),
    Number("SIMOTA.IOU_WEIGHT", 3.0, "MATCHER", "matcher", "iou_weight"),
    # Side of the fovea, as a share of the box's (FoveaBox).
    Number("FOVEA_SIGMA", 0.4, "MATCHER", "matcher", "sigma"),
    # Losses.
    Number("QFL_BETA", 2.0, "QUALITY", "cls_loss", "beta"),
    Number("FOCAL_ALPHA", 0.25, "QUALITY", "cls_loss", "alpha"),
    Number("FOCAL_GAMMA", 2.0, "QUALITY", "cls_loss", "gamma"),
    Number("LOSS_CLS_WEIGHT", 1.0, "QUALITY", "cls_loss", "weight"),
    Number("LOSS_BOX_REG_WEIGHT", 2.0, "BOX_REPRESENTATION", "box_loss", "weight"),
    Number("LOSS_DFL_WEIGHT", 0.25, "BOX_REPRESENTATION", "dist_loss", "weight"),
    # Inference.
    Number("NMS_THRESH_TEST", 0.6, "NMS_TYPE", "suppression", "iou_thresh"),
    Number("NMS_SIGMA", 0.5, "NMS_TYPE", "suppression", "sigma"),
    Number("NMS_CLASS_AGNOSTIC", False, "NMS_TYPE", "suppression", "class_agnostic"),
)

# Keys of MODEL.GFL with their defaults: those of NUMBERS and of the inference.
DEFAULTS = {
    **{number.key: number.default for number in NUMBERS},
    "NMS_TYPE": "hard",
    "SCORE_THRESH_TEST": 0.05,
    # Thresholds of classes: K numbers, or pairs such as [["car", 0.3], [5, 0.4]], where
    # SCORE_THRESH_TEST is that of the others.
    "SCORE_THRESH_PER_CLASS": [],
    "TOPK_CANDIDATES_TEST": 1000,
    # Boxes end so many pixels before the right and the lower margin of the image.
    "CLIP_MARGIN_TEST": 0.0,
}
