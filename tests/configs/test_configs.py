"""Every shipped config: it loads, and its parts are what they should be, on tiny data."""

import copy
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from detectron2.evaluation import inference_on_dataset
from detectron2.utils.env import seed_all_rng
from omegaconf import OmegaConf

from gfocal import model_zoo
from gfocal.config import apply_overrides, check_config
from gfocal.config.options import is_declared
from gfocal.engine import LazyTrainer
from gfocal.modeling.quality import DistributionGuidedQualityPredictor, NoQuality
from tests.helpers.coco_files import valid_document, write_dataset
from tests.helpers.detectron2_main import OF_MAIN, needs_main

ROOT = Path(model_zoo.get_config_file("COCO-Detection/gflv2_R_50_FPN_1x.py")).parents[1]
SHIPPED = sorted(
    str(path.relative_to(ROOT)) for folder in ROOT.iterdir() for path in folder.rglob("*.py")
)
RUNNABLE = [name for name in SHIPPED if not name.startswith("common/")]
LOADABLE = [
    pytest.param(name, marks=needs_main) if Path(name).stem in OF_MAIN else name
    for name in RUNNABLE
]
SCHEMA = {
    "train": ["output_dir", "init_checkpoint", "max_iter", "seed", "eval_period", "log_period"],
    "train.amp": ["enabled"],
    "train.ddp": ["broadcast_buffers", "find_unused_parameters", "fp16_compression"],
    "train.checkpointer": ["period", "max_to_keep"],
    "model": ["_target_"],
    "optimizer": ["_target_", "params", "lr"],
    "lr_multiplier": ["_target_"],
    "dataloader": ["train", "test", "evaluator"],
}
CUSTOM = ["custom_coco", "bccd_budget_gflv1", "bccd_budget_gflv2"]


@pytest.fixture
def overrides(tmp_path):
    """Those of custom_coco.py, for a dataset of three images and three classes."""
    train_json, images = write_dataset(tmp_path, valid_document(), "train")
    val_json, _ = write_dataset(tmp_path, valid_document(), "val")
    return [
        f"data.train_json={train_json}",
        f"data.train_images={images}",
        f"data.val_json={val_json}",
        f"data.val_images={images}",
    ]


def load(name, overrides=()):
    return apply_overrides(LazyConfig.load(str(ROOT / name)), list(overrides))


def _parameters(cfg):
    """The optimizer and the model that it steps."""
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    del cfg.optimizer.params["model"]
    return model, optimizer


def test_the_list_is_complete():
    assert {
        "COCO-Detection/gfl_R_50_FPN_1x.py",
        "COCO-Detection/gflv2_R_50_FPN_1x.py",
        "quick_start/shapes_gflv2.py",
        "quick_start/custom_coco.py",
        "quick_start/bccd_budget_gflv1.py",
        "quick_start/bccd_budget_gflv2.py",
    } <= set(RUNNABLE)


@pytest.mark.parametrize("path", LOADABLE)
def test_the_schema_of_the_training_tools(path, tmp_path):
    """What Detectron2's tools/lazyconfig_train_net.py reads; a saved config is the same config."""
    cfg = load(path)
    for group, names in SCHEMA.items():
        assert set(names) <= set(OmegaConf.select(cfg, group)), group
    assert "num_classes" in cfg.model.get("roi_heads", cfg.model)  # those of an R-CNN are there
    assert cfg.train.device == ("cuda" if torch.cuda.is_available() else "cpu")
    file = tmp_path / "config.yaml"
    LazyConfig.save(cfg, str(file))
    assert not Path(f"{file}.pkl").exists()
    saved = LazyConfig.load(str(file))
    assert saved.optimizer.lr == cfg.optimizer.lr
    assert set(saved) == set(cfg)
    assert saved.train == cfg.train
    for again in (copy.deepcopy(cfg), pickle.loads(pickle.dumps(cfg))):
        assert again == cfg
        assert is_declared(OmegaConf.get_type(again.train))
    check_config(cfg)
    check_config(saved)


def _multipliers(cfg, iterations):
    multiplier = instantiate(cfg.lr_multiplier)
    return [multiplier(i / cfg.train.max_iter) for i in iterations]


def test_the_papers_schedule():
    """lr 0.01: linear from 0.001 of it over 500 iterations, a tenth from 60k on, 1/100 from 80k."""
    for name in ("gfl", "gflv2"):
        cfg = load(f"COCO-Detection/{name}_R_50_FPN_1x.py")
        assert cfg.train.max_iter == 90000 and cfg.dataloader.train.total_batch_size == 16
        assert cfg.optimizer.lr == 0.01 and cfg.optimizer.max_grad_norm is None
        iterations = [0, 250, 500, 59999, 60000, 79999, 80000, 89999]
        assert _multipliers(cfg, iterations) == pytest.approx(
            [0.001, 0.5005, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
        )


def test_the_papers_model():
    for name, quality in (("gfl", NoQuality), ("gflv2", DistributionGuidedQualityPredictor)):
        cfg = load(f"COCO-Detection/{name}_R_50_FPN_1x.py")
        model, optimizer = _parameters(cfg)
        assert isinstance(model.head.quality_predictor, quality)
        assert model.num_classes == 80 and model.input_format == "RGB"
        assert (model.test_score_thresh, model.test_topk_candidates) == (0.05, 1000)
        assert (model.test_nms_thresh, model.max_detections_per_image) == (0.6, 100)
        assert cfg.train.init_checkpoint == "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
        assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
        assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_papers_images(split, overrides):
    """60 x 60 and 64 x 48 px: the shorter side becomes 800."""
    cfg = load("COCO-Detection/gflv2_R_50_FPN_1x.py")
    custom = load("quick_start/custom_coco.py", [*overrides, "data.batch_size=2"])
    mapper = instantiate(cfg.dataloader[split].mapper)
    dicts = instantiate(custom.dataloader[split].dataset)
    shapes = [mapper(record)["image"].shape for record in dicts]
    assert shapes[:2] == [(3, 800, 800), (3, 800, 1067)]
    assert mapper.image_format == "RGB"
    resize = mapper.augmentations.augs[0].get_transform(np.zeros((48, 480, 3)))
    assert resize.new_w == 1333
    assert custom.dataloader[split].mapper.augmentations[0].short_edge_length == 800


def test_coco_without_the_data(monkeypatch, tmp_path):
    if Path(MetadataCatalog.get("coco_2017_train").json_file).exists():
        pytest.skip("COCO is on this machine")
    monkeypatch.chdir(tmp_path)
    cfg = load("COCO-Detection/gflv2_R_50_FPN_1x.py")
    for key in ("train", "evaluator", "test"):
        with pytest.raises(FileNotFoundError, match=r"is not there.*DETECTRON2_DATASETS"):
            instantiate(cfg.dataloader[key])


@pytest.mark.parametrize("name", CUSTOM)
def test_a_dataset_by_overrides_alone(name, overrides):
    small = ["data.min_size=64", "data.max_size=96", "data.batch_size=2", "data.num_workers=0"]
    cfg = load(f"quick_start/{name}.py", overrides + small)
    model, _ = _parameters(cfg)
    assert model.num_classes == model.head.num_classes == 3
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert len(batch) == 2 and {x["image_id"] for x in batch} <= {3, 7}  # 9 has no boxes
    losses = model.to("cpu")(batch)
    assert all(torch.isfinite(loss) for loss in losses.values())
    evaluator = instantiate(cfg.dataloader.evaluator)
    loader = instantiate(cfg.dataloader.test)
    assert [x[0]["image_id"] for x in loader] == [3, 7, 9]
    model.test_score_thresh = 0.0  # so that an untrained model says something
    results = inference_on_dataset(model.eval(), loader, evaluator)
    assert set(results["bbox"]) >= {"AP", "AP50", "AP75", "AP-person", "AP-dog", "AP-toothbrush"}


@pytest.mark.parametrize("name", CUSTOM)
def test_one_knob_for_the_number_of_classes(name, overrides):
    for knob in ("data", "model"):
        cfg = load(f"quick_start/{name}.py", [*overrides, f"{knob}.num_classes=7"])
        assert cfg.model.num_classes == cfg.model.head.num_classes == 7
        for split in ("train", "test"):
            with pytest.raises(ValueError, match=r"num_classes is 7, but .*json has 3 categories"):
                instantiate(cfg.dataloader[split])
    cfg = load(f"quick_start/{name}.py", [*overrides, "data.num_classes=3"])
    assert len(instantiate(cfg.dataloader.test)) == 3


def test_train_and_val_with_other_categories(overrides, tmp_path):
    document = valid_document()
    document["categories"][0]["name"] = "hairbrush"
    val_json, _ = write_dataset(tmp_path, document, "val")
    cfg = load("quick_start/custom_coco.py", overrides)
    with pytest.raises(ValueError, match=rf"{val_json} .*train\.json .*toothbrush"):
        instantiate(cfg.dataloader.test)


def test_faults_of_the_validation_set_show_before_the_training(overrides, tmp_path):
    options = ["train.device=cpu", f"train.output_dir={tmp_path}/run", "data.num_workers=0"]
    cfg = load("quick_start/bccd_budget_gflv2.py", [*overrides, *options])
    cfg.data.val_json = f"{tmp_path}/none.json"
    with pytest.raises(FileNotFoundError, match="no COCO json .*none.json"):
        LazyTrainer(cfg)
    document = valid_document()
    document["annotations"][0]["category_id"] = 4
    cfg.data.val_json, _ = write_dataset(tmp_path, document, "val")
    with pytest.raises(ValueError, match="annotation 1 of image 7 .*unknown category"):
        LazyTrainer(cfg)


def test_without_a_validation_set_there_is_no_evaluation(overrides, tmp_path, caplog):
    options = ["train.device=cpu", f"train.output_dir={tmp_path}/run", "data.num_workers=0"]
    train = [x for x in overrides if "val_" not in x]
    cfg = load("quick_start/custom_coco.py", [*train, *options])
    cfg.model, cfg.train.init_checkpoint = load("quick_start/shapes_gflv2.py").model, ""
    cfg.model.num_classes = 3
    with caplog.at_level(logging.WARNING):
        trainer = LazyTrainer(cfg)
    assert caplog.text.count("No evaluation: the config names no test dataset") == 1
    assert trainer._evaluate() == {}
    with pytest.raises(ValueError, match=r"nothing to evaluate: .*data\.val_json"):
        LazyTrainer.evaluate(cfg)
    for key, value in (("best_metric", "bbox/AP"), ("validation_loss", True)):
        other = copy.deepcopy(cfg)
        other.train[key] = value
        with pytest.raises(ValueError, match=rf"train\.{key} is .* needs an evaluation.*val_json"):
            LazyTrainer(other)


def test_several_jsons(overrides, tmp_path):
    document = valid_document()
    other, folder = write_dataset(tmp_path, document, "other")
    cfg = load("quick_start/custom_coco.py", overrides)
    files = f"[{cfg.data.train_json},{other}]"
    several = [f"data.train_json={files}", f"data.val_json={files}", f"data.val_images={folder}"]
    cfg = load("quick_start/custom_coco.py", [*overrides, *several])
    assert len(instantiate(cfg.dataloader.train).dataset) == 4
    names = instantiate(cfg.dataloader.test.dataset.names)
    assert names == ["custom_coco_val_1", "custom_coco_val_2"]


def test_missing_overrides_are_named(overrides):
    cfg = load("quick_start/custom_coco.py")
    for node in (cfg.model, cfg.dataloader.train):
        with pytest.raises(ValueError, match=r"data\.train_json=\.\.\. data\.train_images=\.\.\."):
            instantiate(node)
    cfg = load("quick_start/custom_coco.py", [x for x in overrides if "val_images" not in x])
    with pytest.raises(ValueError, match=r"'custom_coco_val' has no image_root.*data\.val_images="):
        instantiate(cfg.dataloader.test)


def test_evaluation_without_the_training_data(overrides):
    """With the number of classes given, only the data to evaluate on is needed."""
    val = [x for x in overrides if "val" in x]
    cfg = load("quick_start/custom_coco.py", [*val, "data.num_classes=3"])
    assert cfg.model.num_classes == 3
    instantiate(cfg.dataloader.evaluator)
    assert len(instantiate(cfg.dataloader.test)) == 3


def test_invalid_entries_can_be_dropped(overrides, tmp_path, caplog):
    document = valid_document()
    document["annotations"][0]["bbox"][2] = 0
    write_dataset(tmp_path, document, "train")
    cfg = load("quick_start/custom_coco.py", overrides)
    with pytest.raises(ValueError, match=r"(?s)annotation 1 of image 7 \(b.*data\.on_invalid"):
        instantiate(cfg.dataloader.train)
    cfg.data.on_invalid = "drop"
    with caplog.at_level(logging.WARNING):
        instantiate(cfg.dataloader.train)
    assert "dropped 1 of 4 annotations (1 with a degenerate box)" in caplog.text


@pytest.mark.parametrize("version", ["gflv1", "gflv2"])
def test_the_bccd_budget(version, overrides):
    cfg = load(f"quick_start/bccd_budget_{version}.py", overrides)
    assert (cfg.train.max_iter, cfg.dataloader.train.total_batch_size) == (1500, 8)
    assert _multipliers(cfg, [0, 100, 200, 1049, 1050, 1349, 1350, 1499]) == pytest.approx(
        [0.001, 0.5005, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    )
    model, optimizer = _parameters(cfg)
    assert optimizer.max_grad_norm == 35.0 and cfg.train.init_checkpoint == ""
    for group in optimizer.param_groups:
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.9, 1e-4)
    # From scratch: every parameter learns, batch norms too.
    assert all(parameter.requires_grad for parameter in model.parameters())
    norms = [m for m in model.backbone.bottom_up.modules() if type(m).__name__ == "BatchNorm2d"]
    assert len(norms) == 20  # of ResNet-18
    quality = NoQuality if version == "gflv1" else DistributionGuidedQualityPredictor
    assert isinstance(model.head.quality_predictor, quality)
    assert {shape.channels for shape in model.backbone.output_shape().values()} == {128}
    mapper = instantiate(cfg.dataloader.train.mapper)
    resize = mapper.augmentations.augs[0].get_transform(np.zeros((480, 640, 3)))
    assert (resize.new_h, resize.new_w) == (256, 341)  # of BCCD's 480 x 640
    assert cfg.train.eval_period == cfg.train.checkpointer.period == 1500


def test_the_same_seed_gives_the_same_images(overrides):
    """In the same order and flipped the same way, through two worker processes."""

    def batches():
        seed_all_rng(5)
        cfg = load("quick_start/bccd_budget_gflv1.py", [*overrides, "data.batch_size=2"])
        loader = iter(instantiate(cfg.dataloader.train))
        return [[(x["image_id"], x["image"].float().mean()) for x in next(loader)] for _ in "abc"]

    assert batches() == batches()


@pytest.mark.parametrize("name", ["shapes_gflv2", "shapes_timm"])
def test_shapes(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    few = ["train", "test"]
    cfg = load(
        f"quick_start/{name}.py",
        [f"dataloader.{split}.dataset.names.num_images=8" for split in few]
        + [f"dataloader.{split}.num_workers=0" for split in few],
    )
    model, _ = _parameters(cfg)
    assert all(parameter.requires_grad for parameter in model.parameters())
    batch = next(iter(instantiate(cfg.dataloader.train)))
    losses = model.to("cpu")(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    evaluator, loader = instantiate(cfg.dataloader.evaluator), instantiate(cfg.dataloader.test)
    assert len(loader) == 8
    assert "AP50" in inference_on_dataset(model.eval(), loader, evaluator)["bbox"]
    names = [path.name for path in (tmp_path / "gfocal_shapes").iterdir()]
    assert sorted(names) == ["train_8x192px_seed0_v2", "val_8x192px_seed0_v2"]
