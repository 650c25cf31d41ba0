import pytest
from detectron2.modeling import build_model

from gfocal import model_zoo
from gfocal.config.options import OPTIONS
from gfocal.engine import Trainer
from gfocal.process.builders import TRAINER_KEYS


def test_the_keys_are_those_that_this_package_adds():
    added = {option.yacs for option in OPTIONS if option.added}
    assert {*TRAINER_KEYS, "TEST.BEST_MODE"} == added | {"INPUT.AUGMENTATIONS"}


@pytest.mark.parametrize("architecture", ["GFL", "QFLRetinaNet"])
def test_another_trainer_builds_the_model(architecture, caplog):
    cfg = model_zoo.get_config("COCO-Detection/gfl_R_50_FPN_1x.yaml")
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = architecture, "cpu"
    if architecture == "QFLRetinaNet":
        cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
        cfg.MODEL.RETINANET.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    build_model(cfg)
    assert "trainers" not in caplog.text  # nothing was asked for
    cfg.INPUT.AUGMENTATIONS = "ssd"
    cfg.SOLVER.EMA_DECAY, cfg.TEST.BEST_METRIC, cfg.TEST.RELIABILITY = 0.9, "bbox/AP", True
    build_model(cfg)
    asked = "('ssd'), SOLVER.EMA_DECAY (0.9), TEST.BEST_METRIC ('bbox/AP'), TEST.RELIABILITY (True)"
    assert f"INPUT.AUGMENTATIONS {asked}: gfocal's own" in caplog.text
    caplog.clear()
    Trainer.build_model(cfg)
    assert "trainers" not in caplog.text
