"""The inference settings: one check at every door."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from gfocal import model_zoo
from gfocal.config import add_gfocal_config, apply_overrides, check_config
from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.suppression import GaussianSoftNMS, HardNMS, LinearSoftNMS
from tests.helpers.tiny import make_gfl, make_input

BAD = {
    "test_score_thresh": [-1, 1, math.nan, math.inf, True, "0.3", None, [], [0.1, 2], {}, {"a": 2}],
    "test_nms_thresh": [-1, 1.01, math.nan, True, "0.6", None, [0.6]],
    "test_topk_candidates": [0, -1, 10.0, True, "10", None, [10], math.inf],
    "max_detections_per_image": [0, -1, 100.0, False, "100", None, [100], math.nan],
}
CASES = [(key, value) for key, values in BAD.items() for value in values]
PART = {"max_detections_per_image": "max_detections"}


@pytest.mark.parametrize(("key", "value"), CASES)
def test_the_constructor_and_attributes(key, value):
    with pytest.raises(ValueError, match=rf"{key} is .*; expected "):
        make_gfl(**{key: value})
    model = make_gfl()
    before = getattr(model, key)
    with pytest.raises(ValueError, match=rf"^{key} is .*; expected "):
        setattr(model, key, value)
    name = PART.get(key, key.removeprefix("test_"))
    with pytest.raises(ValueError, match=rf"^{name} is .*; expected "):
        setattr(model.postprocess, name, value)
    with pytest.raises(ValueError, match=rf"^{name} is .*; expected "):
        NMSPostProcess(**{name: value})
    assert getattr(model, key) == before


@pytest.fixture(scope="module")
def lazy():
    return {
        name: model_zoo.get_config(name)
        for name in (
            "quick_start/shapes_gflv2.py",
            "ablations/table1b/retinanet_R_50_FPN_1x_focal.py",
        )
    }


@pytest.mark.parametrize(("key", "value"), [x for x in CASES if x[1] is not None])
def test_lazy_configs(lazy, key, value):
    for cfg in map(copy.deepcopy, lazy.values()):
        cfg.model[key] = value
        with pytest.raises(ValueError, match=rf"^model.{key} is .*; expected "):
            check_config(cfg)


def test_overrides(lazy):
    cfg = copy.deepcopy(lazy["quick_start/shapes_gflv2.py"])
    apply_overrides(cfg, ["model.test_score_thresh=0.2", "model.max_detections_per_image=10000"])
    apply_overrides(cfg, ["model.test_score_thresh=[0.3,0.5,0.5]"])
    apply_overrides(cfg, ["model.test_score_thresh={0:0.3,default:0.1}"])
    suppression = "model.suppression={_target_:gfocal.modeling.suppression.LinearSoftNMS}"
    apply_overrides(cfg, [suppression, "model.suppression.iou_thresh=0.4"])
    check_config(cfg)
    model = instantiate(cfg.model)
    assert model.postprocess.thresholds(3)[:2] == (0.3, 0.1)
    assert model.max_detections_per_image == 10000
    assert model.test_nms_thresh == 0.4
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model.postprocess))):
        assert repr(getattr(copied, "postprocess", copied)) == repr(model.postprocess)
    cfg.model.suppression.iou_thresh = 3
    with pytest.raises(ValueError, match="^model.suppression.iou_thresh is 3; expected"):
        check_config(cfg)


def yacs(*changes, architecture="GFL"):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.merge_from_list(["MODEL.META_ARCHITECTURE", architecture, "MODEL.DEVICE", "cpu"])
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_gfl_resnet_fpn_backbone"])
    cfg.merge_from_list(["MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"]])
    cfg.merge_from_list(["MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"], *changes])
    return cfg


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.GFL.SCORE_THRESH_TEST", -1.0),
        ("MODEL.GFL.SCORE_THRESH_TEST", math.nan),
        ("MODEL.GFL.SCORE_THRESH_PER_CLASS", [2.0]),
        ("MODEL.GFL.SCORE_THRESH_PER_CLASS", [["a", -1.0]]),
        ("MODEL.GFL.TOPK_CANDIDATES_TEST", 0),
        ("MODEL.GFL.NMS_THRESH_TEST", 1.5),
        ("MODEL.GFL.NMS_SIGMA", 0.0),
        ("MODEL.RETINANET.SCORE_THRESH_TEST", 1.0),
        ("MODEL.RETINANET.NMS_THRESH_TEST", -0.1),
        ("TEST.DETECTIONS_PER_IMAGE", 0),
    ],
)
def test_yacs(key, value):
    for architecture in ("GFL", "QFLRetinaNet"):
        cfg = yacs(key, value, architecture=architecture)
        with pytest.raises(ValueError, match=rf"{key} is .*; expected "):  # or: not read
            check_config(cfg)
        with pytest.raises(ValueError, match=rf"^{key} is .*; expected "):
            build_model(cfg)


def test_yacs_parts():
    DatasetCatalog.register("inference_toy", list)
    MetadataCatalog.get("inference_toy").set(thing_classes=["car", "bus", "cat"])
    keys = ["MODEL.GFL.NUM_CLASSES", 3, "DATASETS.TEST", ("inference_toy",)]
    pairs = ["MODEL.GFL.SCORE_THRESH_PER_CLASS", [["bus", 0.3], [2, 0.4]]]
    gaussian = ["MODEL.GFL.NMS_TYPE", "soft_gaussian", "MODEL.GFL.NMS_SIGMA", 0.7]
    model = build_model(yacs(*keys, *pairs, *gaussian, "TEST.DETECTIONS_PER_IMAGE", 285))
    assert model.postprocess.thresholds(3) == (0.05, 0.3, 0.4)
    assert model.max_detections_per_image == 285
    assert repr(model.postprocess.suppression) == repr(GaussianSoftNMS(0.7))
    with pytest.raises(ValueError, match="MODEL.GFL.NMS_SIGMA is 0.7, and with MODEL.GFL.NMS_TYPE"):
        build_model(yacs("MODEL.GFL.NMS_SIGMA", 0.7))
    with pytest.raises(ValueError, match="'buss', which is unknown; did you mean bus"):
        build_model(yacs(*keys, "MODEL.GFL.SCORE_THRESH_PER_CLASS", [["buss", 0.3]]))
    changed = yacs("MODEL.GFL.NMS_TYPE", "soft_linear", architecture="QFLRetinaNet")
    with pytest.raises(ValueError, match="MODEL.GFL.NMS_TYPE is 'soft_linear', but QFLRetinaNet"):
        build_model(changed)


NAMES = ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("thresh", "names", "message"),
    [
        ([0.3, 0.5], None, "has 2 numbers, .*; expected one for each of 3 classes"),
        ({3: 0.3}, None, r"has class 3; expected an index in 0\.\.2"),
        ({-1: 0.3}, None, "has class -1"),
        ({"red": 0.3}, None, "no class names are known; pass class_names, or use indices"),
        ({"gren": 0.3}, NAMES, "'gren', which is unknown; did you mean green"),
        ({"red": 0.3}, ["red"], "class_names has 1 names; expected 3"),
        ({"red": 0.3}, ["red", "red", "blue"], "the name of several classes"),
        ({"red": 0.3, 0: 0.2}, NAMES, "has 'red' and 0, which are the same class"),
    ],
)
def test_thresholds_that_fit_no_classes(thresh, names, message):
    extra = {} if names is None else {"class_names": names}
    with pytest.raises(ValueError, match=message):
        make_gfl(test_score_thresh=thresh, **extra)
    model = make_gfl(**extra)
    with pytest.raises(ValueError, match=message):
        model.test_score_thresh = thresh
    with pytest.raises(ValueError, match=message):
        make_gfl(postprocess=NMSPostProcess(score_thresh=thresh, **extra))


def test_a_threshold_for_each_class():
    """The detections of a low threshold, less those of each class below its own."""
    settings = {"test_nms_thresh": 1.0, "max_detections_per_image": 10000}
    model = make_gfl(test_score_thresh=0.005, class_names=NAMES, **settings).eval()
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.3)
    with torch.no_grad():
        images = [make_input(64, 96), make_input(80, 64)]
        (low, _) = everything = [x["instances"] for x in model(images)]
        middle = low.scores.median().item()
        for thresh in ([0.005, middle, 0.9], {"green": middle, 2: 0.9, "default": 0.005}):
            model.test_score_thresh = thresh
            numbers = torch.tensor([0.005, middle, 0.9])
            for result, before in zip(model(images), everything):
                wanted = before[before.scores > numbers[before.pred_classes]]
                assert 0 < len(wanted) < len(before)
                assert torch.equal(result["instances"].scores, wanted.scores)
                assert torch.equal(result["instances"].pred_boxes.tensor, wanted.pred_boxes.tensor)
        model.test_score_thresh = [0.005] * 3  # equal to the one number, bit for bit
        assert torch.equal(model(images)[0]["instances"].scores, low.scores)


def test_what_is_given_beside_a_part_is_noticed():
    with pytest.raises(ValueError, match="also test_score_thresh 0.05"):  # its default
        make_gfl(postprocess=NMSPostProcess(), test_score_thresh=0.05)
    with pytest.raises(ValueError, match="got a suppression HardNMS.* and also nms_thresh 0.6"):
        make_gfl(suppression=HardNMS(), test_nms_thresh=0.6)
    model = make_gfl(suppression=GaussianSoftNMS(0.3), max_detections_per_image=np.int64(7))
    with pytest.raises(AttributeError, match="iou_thresh"):
        model.test_nms_thresh = 0.5
    model = make_gfl(suppression=LinearSoftNMS())
    model.test_nms_thresh = 0.7
    assert model.postprocess.suppression.iou_thresh == 0.7
