"""GFL through both trainers, on generated images: from a shipped config to AP and to detections."""

import json
import math
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image

from gfocal import model_zoo
from gfocal.data.shapes import generate_shapes, register_shapes
from gfocal.engine import Predictor, load_config, trainer_class

SIZES = {"train": 6, "val": 3}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    return tmp_path


def lazy(root):
    overrides = [
        f"train.output_dir={root}/run",
        "train.max_iter=3",
        "train.device=cpu",
        "train.log_period=1",
        "train.channels_last=True",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        f"dataloader.train.dataset.names.num_images={SIZES['train']}",
        f"dataloader.test.dataset.names.num_images={SIZES['val']}",
        "model.test_score_thresh=0.001",
    ]
    return load_config(model_zoo.get_config_file("quick_start/shapes_gflv2.py"), overrides)


def yacs(root):
    names = {split: register_shapes(split, num_images=n) for split, n in SIZES.items()}
    overrides = [
        f"OUTPUT_DIR={root}/run",
        "SOLVER.MAX_ITER=3",
        "SOLVER.STEPS=(2,)",
        "SOLVER.IMS_PER_BATCH=2",
        f"DATASETS.TRAIN=('{names['train']}',)",
        f"DATASETS.TEST=('{names['val']}',)",
        "DATALOADER.NUM_WORKERS=0",
        "INPUT.MIN_SIZE_TRAIN=(192,)",
        "INPUT.MIN_SIZE_TEST=192",
        "MODEL.DEVICE=cpu",
        "MODEL.WEIGHTS=",
        "MODEL.CHANNELS_LAST=True",
        "MODEL.RESNETS.DEPTH=18",
        "MODEL.RESNETS.RES2_OUT_CHANNELS=64",
        "MODEL.RESNETS.NORM=BN",
        "MODEL.BACKBONE.FREEZE_AT=0",
        "MODEL.FPN.OUT_CHANNELS=32",
        "MODEL.GFL.CONV_DIM=32",
        "MODEL.GFL.NUM_CONVS=1",
        "MODEL.GFL.NUM_CLASSES=6",
        "MODEL.GFL.SCORE_THRESH_TEST=0.001",
    ]
    name = "COCO-Detection/gflv2_R_50_FPN_1x.yaml"
    return load_config(model_zoo.get_config_file(name), overrides)


@pytest.mark.parametrize("make_config", [lazy, yacs])
def test_train_evaluate_predict(make_config, root):
    cfg = make_config(root)
    if isinstance(cfg, CfgNode):  # its backbone is a ResNet-18: start from torchvision's
        network = torchvision.models.resnet18(weights=None)
        cfg.MODEL.WEIGHTS = f"{root}/resnet18.pth"
        torch.save(network.state_dict(), cfg.MODEL.WEIGHTS)
    trainer = trainer_class(cfg)(cfg)
    trainer.resume_or_load(resume=False)
    weight = trainer.model.backbone.bottom_up.res5[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    if isinstance(cfg, CfgNode):
        loaded = trainer.model.backbone.bottom_up.res5[1].conv2.weight
        assert torch.equal(loaded, network.layer4[1].conv2.weight)
    results = trainer.train()
    assert {"AP", "AP50", "AP75"} <= results["bbox"].keys()
    lines = [json.loads(x) for x in (Path(root) / "run/metrics.json").read_text().splitlines()]
    last = {k: v for line in lines for k, v in line.items()}
    for key in ("loss_cls", "loss_box_reg", "loss_dfl"):
        assert math.isfinite(last[key]) and last[key] > 0
    assert "bbox/AP50" in last

    if not isinstance(cfg, CfgNode):
        cfg.train.init_checkpoint = f"{root}/run/model_final.pth"
        again = trainer_class(cfg).evaluate(cfg, fast=True)
        assert again["bbox"]["AP50"] == pytest.approx(results["bbox"]["AP50"], abs=1)

    predictor = Predictor(cfg, str(Path(root) / "run/model_final.pth"))
    image = next((Path(generate_shapes("val", num_images=SIZES["val"])) / "images").iterdir())
    instances = predictor(read_image(str(image), format="BGR"))["instances"]
    assert len(instances) > 0
    assert predictor.metadata.thing_classes[0] == "circle"
