"""What becomes of every key of Detectron2's yacs config in a training of this package's detectors.

A key is acted on, or it may change without a harm, or a change of it is refused, because nothing
would read it. No key is ignored in silence.
"""

from operator import attrgetter
from typing import Any, NamedTuple

from detectron2.config import CfgNode, get_cfg

from .yacs import add_gfocal_config

__all__ = ["VERDICTS", "Verdict", "check_expected_results", "check_verdicts", "verdict_of"]


class Verdict(NamedTuple):
    """What becomes of a key, or of all keys below a group.

    Attributes:
        kind: "acted on", "harmless" or "refused", the last if it is changed.
        why: who reads it; why it may change; or what to change instead.
    """

    kind: str
    why: str


def _acted_on(by: str) -> Verdict:
    return Verdict("acted on", by)


def _refused(why: str) -> Verdict:
    return Verdict("refused", why)


_OTHER = _refused("it is of another architecture")
_OTHER_HEAD = _OTHER
_BOXES_ONLY = _refused("the detectors here find boxes only")
_NO_PROPOSALS = _refused("a dense detector has no proposals")

# Of a key the longest entry counts: its own, or that of a group.
VERDICTS: dict[str, Verdict] = {
    "VERSION": Verdict("harmless", "Detectron2 reads it to upgrade old files"),
    "GLOBAL.HACK": Verdict("harmless", "for a user's own code"),
    "OUTPUT_DIR": _acted_on("the trainer"),
    "SEED": _acted_on("the trainer"),
    "CUDNN_BENCHMARK": _acted_on("Detectron2's default_setup"),
    "FLOAT32_PRECISION": _acted_on("Detectron2's default_setup"),
    "VIS_PERIOD": _acted_on("the model"),
    "MODEL.META_ARCHITECTURE": _acted_on("build_model"),
    "MODEL.DEVICE": _acted_on("build_model"),
    "MODEL.WEIGHTS": _acted_on("the trainer"),
    "MODEL.PIXEL_MEAN": _acted_on("the model"),
    "MODEL.PIXEL_STD": _acted_on("the model"),
    "MODEL.BACKBONE": _acted_on("build_backbone"),
    "MODEL.RESNETS": _acted_on("the backbone's builder"),
    "MODEL.FPN": _acted_on("the backbone's builder"),
    "MODEL.MASK_ON": _BOXES_ONLY,
    "MODEL.KEYPOINT_ON": _BOXES_ONLY,
    "MODEL.LOAD_PROPOSALS": _NO_PROPOSALS,
    "MODEL.PROPOSAL_GENERATOR": _NO_PROPOSALS,
    "MODEL.RPN": _NO_PROPOSALS,
    "MODEL.ANCHOR_GENERATOR": _refused(
        "anchors are described by MODEL.GFL.ANCHOR_SCALE and MODEL.GFL.ANCHOR_OFFSET"
    ),
    "MODEL.ROI_HEADS": _OTHER_HEAD,
    "MODEL.ROI_BOX_HEAD": _OTHER_HEAD,
    "MODEL.ROI_BOX_CASCADE_HEAD": _OTHER_HEAD,
    "MODEL.ROI_MASK_HEAD": _OTHER_HEAD,
    "MODEL.ROI_KEYPOINT_HEAD": _OTHER_HEAD,
    "MODEL.SEM_SEG_HEAD": _OTHER_HEAD,
    "MODEL.PANOPTIC_FPN": _OTHER_HEAD,
    "MODEL.RETINANET": _refused("it is of another architecture; the like is below MODEL.GFL"),
    "INPUT": _acted_on("the mapper's augmentations, and Predictor's"),
    "INPUT.MASK_FORMAT": _BOXES_ONLY,
    "DATASETS.TRAIN": _acted_on("the trainer"),
    "DATASETS.TEST": _acted_on("the trainer"),
    "DATASETS.PROPOSAL_FILES_TRAIN": _NO_PROPOSALS,
    "DATASETS.PROPOSAL_FILES_TEST": _NO_PROPOSALS,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": _NO_PROPOSALS,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": _NO_PROPOSALS,
    "DATALOADER": _acted_on("the trainer's loaders"),
    "SOLVER": _acted_on("Detectron2's build_optimizer and build_lr_scheduler, and the trainer"),
    "TEST.EXPECTED_RESULTS": _acted_on("the trainer, after the last evaluation"),
    "TEST.EVAL_PERIOD": _acted_on("the trainer"),
    "TEST.DETECTIONS_PER_IMAGE": _acted_on("the model, and the evaluator's limit"),
    "TEST.PRECISE_BN": _acted_on("the trainer"),
    "TEST.AUG": _acted_on("the trainer and Predictor"),
    "TEST.KEYPOINT_OKS_SIGMAS": _BOXES_ONLY,
}

# The nodes of this package's architectures, which the others do not read.
_NODES = (
    "MODEL.GFL",
    "MODEL.SSD",
    "MODEL.CENTERNET",
    "MODEL.CORNERNET",
    "MODEL.DISTILLATION",
)

# What differs for QFLRetinaNet, which is Detectron2's RetinaNet with another loss.
_RETINANET: dict[str, Verdict] = {
    "MODEL.ANCHOR_GENERATOR": _acted_on("the model"),
    "MODEL.RETINANET": _acted_on("the model"),
    "MODEL.RETINANET.FOCAL_LOSS_ALPHA": _refused("QFL takes the place of the focal loss"),
    "MODEL.RETINANET.FOCAL_LOSS_GAMMA": _refused("QFL takes the place: MODEL.GFL.QFL_BETA"),
}
_CORNERNET: dict[str, Verdict] = {
    "MODEL.RESNETS": _refused("it is of another backbone: MODEL.CORNERNET.HOURGLASS"),
    "MODEL.FPN": _refused("it is of another backbone: MODEL.CORNERNET.HOURGLASS"),
    "MODEL.BACKBONE.FREEZE_AT": _refused("no part of an hourglass is frozen"),
    "MODEL.ANCHOR_GENERATOR": _refused("CornerNet has no anchors"),
    "MODEL.RETINANET": _refused("it is of another architecture; see MODEL.CORNERNET"),
}
_CENTERNET: dict[str, Verdict] = {
    "MODEL.FPN": _refused("it is of another backbone: MODEL.CENTERNET.NECK"),
    "MODEL.ANCHOR_GENERATOR": _refused("CenterNet has no anchors"),
    "MODEL.RETINANET": _refused("it is of another architecture; see MODEL.CENTERNET"),
}
_SSD: dict[str, Verdict] = {
    "MODEL.RESNETS": _refused("it is of another backbone: MODEL.VGG"),
    "MODEL.FPN": _refused("it is of another backbone: MODEL.SSD.INPUT_SIZE"),
    "MODEL.ANCHOR_GENERATOR": _refused("the priors are those of MODEL.SSD.INPUT_SIZE"),
    "MODEL.RETINANET": _refused("it is of another architecture; see MODEL.SSD"),
}
_OWN: dict[str, dict[str, Verdict]] = {
    "GFL": {},
    "DistilledGFL": {"MODEL.DISTILLATION": _acted_on("the model and its teacher")},
    "QFLRetinaNet": _RETINANET,
    "CornerNet": _CORNERNET,
    "CenterNet": _CENTERNET,
    "SSD": _SSD,
}
# QFLRetinaNet itself says which keys of MODEL.GFL it reads.
_READS = {name: f"MODEL.{name.upper()}" for name in _OWN}
_READS |= {"QFLRetinaNet": "MODEL.GFL", "DistilledGFL": "MODEL.GFL"}
_ARCHITECTURES = {
    name: {**VERDICTS, **{node: _OTHER for node in _NODES if node != _READS[name]}, **verdicts}
    for name, verdicts in _OWN.items()
}

# Tools that know Detectron2's detectors alone set one threshold in all these (its demo.py does, and
# SAHI). GFL reads it there if they are equal.
THRESHOLDS_OF_TOOLS = ("MODEL.RETINANET.SCORE_THRESH_TEST", "MODEL.ROI_HEADS.SCORE_THRESH_TEST")
_SET_BY_TOOLS = (*THRESHOLDS_OF_TOOLS, "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH")


def verdict_of(key: str, architecture: str = "GFL") -> Verdict | None:
    """What becomes of a key; None for one that nobody has judged.

    Args:
        key: a key, such as "TEST.AUG.ENABLED".
        architecture: MODEL.META_ARCHITECTURE.
    """
    verdicts = _ARCHITECTURES[architecture]
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        if (verdict := verdicts.get(".".join(parts[:end]))) is not None:
            return verdict
    return None


def check_verdicts(cfg: CfgNode) -> None:
    """Refuses what a config changes and nothing reads.

    Other architectures than this package's are not looked at.

    Raises:
        ValueError: such a key; the message names all of them.
    """
    architecture = cfg.MODEL.META_ARCHITECTURE
    if architecture not in _ARCHITECTURES:
        return
    defaults = get_cfg()
    add_gfocal_config(defaults)
    refused = []
    for key in leaves(defaults):
        verdict = verdict_of(key, architecture)
        if verdict is None or verdict.kind != "refused":
            continue
        default = attrgetter(key)(defaults)
        value = _value(cfg, key, default)
        if _lists(value) != _lists(default) and not _is_of_a_tool(cfg, key):
            refused.append(f"{key} is {value!r}: {verdict.why}; expected its default {default!r}")
    if refused:
        raise ValueError(f"keys that {architecture} does not read: " + ". ".join(refused))


def _value(cfg: CfgNode, key: str, default: Any) -> Any:
    """The value of a key; of one that the config does not have, the default."""
    node: Any = cfg
    for name in key.split("."):
        if name not in node:
            return default
        node = node[name]
    return node


def _lists(value: Any) -> Any:
    """A value with lists for tuples: a config that was dumped has these inside."""
    return [_lists(x) for x in value] if isinstance(value, (list, tuple)) else value


def check_expected_results(cfg: CfgNode) -> None:
    """Checks TEST.EXPECTED_RESULTS, which is read hours later.

    Raises:
        ValueError: it is no list of [task, metric, expected, tolerance], or there is no test
            dataset.
    """
    rows = cfg.TEST.EXPECTED_RESULTS
    for row in rows if isinstance(rows, (list, tuple)) else [rows]:
        kinds: tuple[Any, ...] = (str, str, (int, float), (int, float))
        fits = isinstance(row, (list, tuple)) and len(row) == len(kinds)
        if not (fits and all(isinstance(x, kind) for x, kind in zip(row, kinds))):
            raise ValueError(
                f"TEST.EXPECTED_RESULTS is {rows!r}; expected rows [task, metric, value, "
                'tolerance], e.g. [["bbox", "AP", 40.2, 0.3]]'
            )
    if rows and not cfg.DATASETS.TEST:
        raise ValueError(f"TEST.EXPECTED_RESULTS is {rows!r}, but DATASETS.TEST is ()")


def leaves(cfg: CfgNode, prefix: str = "") -> list[str]:
    """Every key of a config that has a value, and no group."""
    ret = []
    for name, value in cfg.items():
        is_group = isinstance(value, CfgNode)
        ret += leaves(value, f"{prefix}{name}.") if is_group else [f"{prefix}{name}"]
    return ret


def _is_of_a_tool(cfg: CfgNode, key: str) -> bool:
    first, second = THRESHOLDS_OF_TOOLS
    value, default = attrgetter(first)(cfg), attrgetter(first)(get_cfg())
    return key in _SET_BY_TOOLS and default != value == attrgetter(second)(cfg)
