"""Tools that make Detectron2's config themselves, as SAHI's and its demo do."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from gfocal import model_zoo
from gfocal.config import add_gfocal_config
from gfocal.modeling.yacs_keys import added_keys

ZOO = model_zoo.get_config_file("COCO-Detection/gflv2_R_50_FPN_1x.yaml")


def as_sahi(yaml, weights=""):
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    cfg.merge_from_file(yaml)
    cfg.MODEL.WEIGHTS = weights
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@pytest.mark.parametrize("architecture", ["GFL", "QFLRetinaNet"])
def test_a_config_without_the_keys_says_who_adds_them(architecture):
    cfg = as_sahi(ZOO)
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.GFL.QUALITY = "qfl"
    if architecture == "QFLRetinaNet":
        cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    with pytest.raises(ValueError, match=r"has no \w+: it was made without .*add_gfocal_config"):
        build_model(cfg)
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "GFL"
    with pytest.raises(ValueError, match="has no GFL: .*add_gfocal_config"):
        build_model(cfg)


def test_a_complete_yaml_works_in_such_a_tool(tmp_path):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.merge_from_file(ZOO)
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.MIN_SIZE_TEST = 64
    cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.GFL.CONV_DIM = 64
    cfg.MODEL.GFL.SCORE_THRESH_TEST = 0.0
    (tmp_path / "complete.yaml").write_text(cfg.dump())
    model = build_model(cfg)
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")

    predictor = DefaultPredictor(
        as_sahi(str(tmp_path / "complete.yaml"), str(tmp_path / "weights.pth"))
    )
    image = np.zeros((64, 96, 3), np.uint8)
    found = predictor(image)["instances"]
    with torch.no_grad():
        (expected,) = model.eval()([_inputs(predictor, image)])
    torch.testing.assert_close(found.scores, expected["instances"].scores)


def _inputs(predictor, image):
    resized = predictor.aug.get_transform(image).apply_image(image)
    tensor = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1).copy())
    return {"image": tensor, "height": image.shape[0], "width": image.shape[1]}


def test_other_errors_stay_what_they_are():
    for error in (AttributeError("'A' object has no attribute 'b'"), KeyError("lower")):
        with pytest.raises(type(error)), added_keys():
            raise error
