"""Other programs that run a detector of this package, see docs/clients.md: SAHI, supervision,
Detectron2's demo.py. Their calls are imitated; where they are installed, they are called too."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import defaults, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

import gfocal
from gfocal.export import to_supervision

NAMES = ["cat", "dog", "owl"]
YAML = f"""
_BASE_: {gfocal.model_zoo.get_config_file("COCO-Detection/gflv2_R_50_FPN_1x.yaml")}
MODEL:
  RESNETS: {{DEPTH: 18, RES2_OUT_CHANNELS: 64}}
  FPN: {{OUT_CHANNELS: 16}}
  GFL: {{CONV_DIM: 64, NUM_CLASSES: 3}}
DATASETS: {{TRAIN: [clients_train], TEST: [clients_train]}}
"""


@pytest.fixture
def yaml(tmp_path: Path, monkeypatch):
    """A yaml, as it is shipped but small, and weights; Detectron2's defaults have the keys."""
    (tmp_path / "small.yaml").write_text(YAML)
    monkeypatch.setattr(defaults, "_C", defaults._C.clone())
    gfocal.add_gfocal_config()
    MetadataCatalog.get("clients_train").set(thing_classes=NAMES)
    torch.manual_seed(0)
    model = build_model(config_of(tmp_path / "small.yaml"))
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.3)  # scores that differ
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    yield tmp_path / "small.yaml"
    MetadataCatalog.remove("clients_train")


def config_of(path, weights=""):
    """The config of a tool that knows nothing of gfocal."""
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", str(weights)
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 128
    return cfg


def predictor_of(yaml):
    return DefaultPredictor(config_of(yaml, yaml.parent / "weights.pth"))


def picture():
    """Of other channels in each place; RGB."""
    image = np.random.default_rng(0).integers(0, 80, (64, 64, 3), np.uint8)
    image[8:40, 12:50, 0] = 240
    return image


def test_without_a_config_the_defaults_get_the_keys(yaml, monkeypatch):
    assert get_cfg().MODEL.GFL.REG_MAX == 16
    own = get_cfg()
    gfocal.add_gfocal_config(own)  # a tool that adds them itself
    assert own == get_cfg()
    monkeypatch.undo()
    with pytest.raises(KeyError, match=r"Non-existent config key: MODEL\.GFL"):
        config_of(yaml)


def sahi_calls(predictor, rgb):
    """As SAHI's Detectron2 model has it: an image in RGB, turned for models of BGR only."""
    return predictor(rgb[:, :, ::-1] if predictor.input_format == "BGR" else rgb)["instances"]


def test_sahis_channels(yaml):
    predictor = predictor_of(yaml)
    assert predictor.input_format == "RGB"
    expected = predictor(picture()[:, :, ::-1])["instances"].scores
    assert len(expected) > 10
    own = gfocal.Predictor(predictor.cfg)(picture()[:, :, ::-1])["instances"]
    assert torch.equal(own.scores, expected)
    assert not torch.equal(sahi_calls(predictor, picture()).scores, expected)
    predictor.input_format = "as it comes"
    assert torch.equal(sahi_calls(predictor, picture()).scores, expected)


def test_sahi(yaml):
    pytest.importorskip("pkg_resources")  # of Detectron2's model_zoo, which SAHI asks first
    sahi = pytest.importorskip("sahi")
    predict = pytest.importorskip("sahi.predict")
    expected = predictor_of(yaml)(picture()[:, :, ::-1])["instances"]
    model = sahi.AutoDetectionModel.from_pretrained(
        "detectron2",
        model_path=str(yaml.parent / "weights.pth"),
        config_path=str(yaml),
        device="cpu",
        image_size=128,
        confidence_threshold=0.0,
    )
    model.model.input_format = "as it comes"
    found = predict.get_prediction(picture(), model).object_prediction_list
    assert [x.score.value for x in found] == expected.scores.tolist()
    assert [x.category.name for x in found] == [NAMES[i] for i in expected.pred_classes]
    boxes = expected.pred_boxes.tensor.numpy()
    np.testing.assert_allclose([x.bbox.to_xyxy() for x in found], boxes, atol=1e-3)


@pytest.mark.parametrize("kind", [DefaultPredictor, gfocal.Predictor])
def test_supervision(yaml, kind):
    supervision = pytest.importorskip("supervision")
    predictor = kind(config_of(yaml, yaml.parent / "weights.pth"))
    outputs = predictor(picture())
    theirs = supervision.Detections.from_detectron2(outputs)
    found = to_supervision(outputs["instances"], predictor.metadata.thing_classes)
    assert len(theirs) == len(outputs["instances"]) > 10
    assert not theirs.data
    assert set(found.data) == {"class_name", "bbox_std"}
    assert [NAMES[i] for i in theirs.class_id] == found.data["class_name"].tolist()
    assert found.data["bbox_std"].shape == (len(found), 4)
    found.data = {}
    assert found == theirs


def test_detectron2s_demo(yaml):
    """It draws the detections, whose standard deviations it does not know."""
    pytest.importorskip("cv2")
    from detectron2.utils.visualizer import Visualizer

    predictor = predictor_of(yaml)
    instances = predictor(picture())["instances"]
    drawn = Visualizer(picture(), predictor.metadata).draw_instance_predictions(instances)
    assert not np.array_equal(drawn.get_image(), picture())
