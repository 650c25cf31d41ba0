from operator import attrgetter

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from gfocal import model_zoo
from gfocal.config import add_gfocal_config, check_config
from gfocal.config.verdicts import VERDICTS, check_verdicts, leaves, verdict_of

LEAVES = leaves(get_cfg())


def yacs() -> CfgNode:
    cfg = model_zoo.get_config("COCO-Detection/gfl_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    return cfg


def test_every_key_of_this_detectron2_is_judged():
    assert [key for key in LEAVES if verdict_of(key) is None] == []
    assert {verdict.kind for verdict in VERDICTS.values()} == {"acted on", "harmless", "refused"}
    assert all(verdict.why for verdict in VERDICTS.values())


def changed(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, tuple):
        return (*value, value[0] if value else 1)
    return [*value, value[0] if value else 1] if isinstance(value, list) else 1


@pytest.mark.parametrize("key", [k for k in LEAVES if verdict_of(k).kind == "refused"])
def test_a_change_of_what_nothing_reads_is_refused(key):
    cfg = yacs()
    check_config(cfg)
    group, _, name = key.rpartition(".")
    value = attrgetter(key)(cfg)
    attrgetter(group)(cfg)[name] = changed(value)
    with pytest.raises(ValueError, match=rf"GFL does not read: {key} is .*expected its default"):
        check_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"  # another's keys are not ours to judge
    check_config(cfg)


def test_a_config_that_was_dumped_is_not_changed():
    cfg = yacs()
    cfg.merge_from_other_cfg(CfgNode.load_cfg(cfg.dump()))  # lists for the tuples inside
    check_verdicts(cfg)


def test_qfl_retinanet_reads_retinanets_keys():
    cfg = yacs()
    cfg.MODEL.META_ARCHITECTURE = "QFLRetinaNet"
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.3
    cfg.MODEL.ANCHOR_GENERATOR.OFFSET = 0.5
    check_config(cfg)
    cfg.MODEL.RETINANET.FOCAL_LOSS_GAMMA = 3.0
    with pytest.raises(ValueError, match=r"FOCAL_LOSS_GAMMA is 3.0.*QFL_BETA"):
        check_config(cfg)


def test_the_threshold_of_tools_that_know_other_detectors():
    """Detectron2's demo.py with --confidence-threshold sets these three."""
    cfg = yacs()
    cfg.MODEL.GFL.NUM_CONVS, cfg.MODEL.GFL.CONV_DIM = 1, 32
    assert build_model(cfg).test_score_thresh == 0.05
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.6
    with pytest.raises(ValueError, match=r"RETINANET.SCORE_THRESH_TEST is 0.6"):
        check_config(cfg)  # alone, it is a mistake
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.6
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.6
    check_config(cfg)
    assert DefaultPredictor(cfg).model.test_score_thresh == 0.6  # as demo.py builds it


@pytest.mark.parametrize(
    ("architecture", "key", "value"),
    [
        ("SSD", "MODEL.GFL.NUM_CLASSES", 6),
        ("SSD", "MODEL.FPN.TOP_IN_FEATURE", "res5"),
        ("CenterNet", "MODEL.SSD.NUM_CLASSES", 6),
        ("CornerNet", "MODEL.GFL.SCORE_THRESH_PER_CLASS", [0.3] * 80),
        ("CornerNet", "MODEL.BACKBONE.FREEZE_AT", 5),
        ("GFL", "MODEL.CENTERNET.NUM_CLASSES", 6),
        ("QFLRetinaNet", "MODEL.CORNERNET.CONV_DIM", 8),
    ],
)
def test_keys_of_another_architecture(architecture, key, value):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = architecture
    check_verdicts(cfg)
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=rf"that {architecture} does not read: {key} is"):
        check_verdicts(cfg)


@pytest.mark.parametrize("node", ["RETINANET", "ROI_HEADS"])
def test_one_threshold_alone_is_refused_by_the_model_too(node):
    """Detectron2's own tools do not call check_config."""
    cfg = yacs()
    cfg.MODEL[node].SCORE_THRESH_TEST = 0.6
    with pytest.raises(ValueError, match=rf"MODEL.{node}.SCORE_THRESH_TEST is 0.6"):
        build_model(cfg)
