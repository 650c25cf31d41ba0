import copy
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.data import DatasetMapper
from omegaconf import OmegaConf
from PIL import Image

from gfocal import model_zoo
from gfocal.config import add_gfocal_config, check_config
from gfocal.data.mapper import DetectionMapper, resize_of
from gfocal.data.pipelines import PIPELINES, yacs_augmentations

COMMON = (
    Path(model_zoo.get_config_file("COCO-Detection/gflv2_R_50_FPN_1x.py")).parents[1] / "common"
)
MEAN = [123.675, 116.28, 103.53]
TRAIN = {
    "ssd": "RandomExpand MinIoURandomCrop Resize RandomFlip PhotometricDistortion",
    "centernet": "PhotometricDistortion RandomCenterCropPad Resize RandomFlip",
    "cornernet": "PhotometricDistortion RandomCenterCropPad Resize RandomFlip",
}


def yacs(*overrides):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.merge_from_list(["INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", MEAN, *overrides])
    return cfg


def fragment(name, **data):
    """A config with the dataloader of a fragment, and no model but what the loader reads."""
    loaded = LazyConfig.load(str(COMMON / f"data_{name}.py"))
    model = {"pixel_mean": MEAN, "input_format": "RGB"}
    content = {"model": model, "dataloader": {**loaded.dataloader, **data}}
    return OmegaConf.create(content, flags={"allow_objects": True})


def test_an_ssd_knows_its_size():
    ssd = ("INPUT.AUGMENTATIONS", "ssd", "MODEL.META_ARCHITECTURE", "SSD")
    cfg = yacs(*ssd, "MODEL.SSD.INPUT_SIZE", 300)
    check_config(cfg)
    assert "Resize(shape=(300, 300))" in str(yacs_augmentations(cfg, False))
    cfg.INPUT.SIZE = 512
    with pytest.raises(ValueError, match=r"INPUT.SIZE is 512, and MODEL.SSD.INPUT_SIZE.*is 300"):
        check_config(cfg)
    assert model_zoo.get_config("COCO-Detection/ssd300_VGG_16.py").dataloader.size == 300


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("size", [None, 96])
def test_both_kinds_of_config_have_the_same(name, size):
    lazy = fragment(name, **({"size": size} if size else {}))
    cfg = yacs("INPUT.AUGMENTATIONS", name, "INPUT.SIZE", size or 0)
    for is_train in (True, False):
        mapper = lazy.dataloader["train" if is_train else "test"].mapper
        one, other = instantiate(mapper), DetectionMapper(cfg, is_train)
        assert str(one.augmentations) == str(other.augmentations)
        assert (one.is_train, one.image_format) == (other.is_train, "RGB") == (is_train, "RGB")
        names = [type(x).__name__ for x in one.augmentations.augs]
        assert not is_train or names == TRAIN[name].split()


def test_the_numbers_of_the_fragments():
    batches = {"ssd": 64, "centernet": 128, "cornernet": 50}
    for name, batch in batches.items():
        assert fragment(name).dataloader.train.total_batch_size == batch
    expand = instantiate(fragment("ssd").dataloader.train.mapper).augmentations.augs[0]
    assert expand.mean == tuple(MEAN) and expand.ratio_range == (1, 4) and expand.prob == 0.5
    for name, mean, size in (("centernet", (0,), 512), ("cornernet", tuple(MEAN), 511)):
        window = instantiate(fragment(name).dataloader.train.mapper).augmentations.augs[1]
        assert (window.mean, window.crop_size, window.border) == (mean, (size, size), 128)
        assert window.ratios == (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    for name, pad in (("centernet", (31, 1)), ("cornernet", (127, 0))):
        (padding,) = instantiate(fragment(name).dataloader.test.mapper).augmentations.augs
        assert (padding.multiple, padding.extra) == pad
        of_file = {"multiple": pad[0], "extra": pad[1], "mean": [*map(float, padding.mean)]}
        assert resize_of([padding]) == {"center_pad": of_file}
    resize = instantiate(fragment("ssd").dataloader.test.mapper).augmentations.augs
    assert resize_of(resize) == {"height": 512, "width": 512}


@pytest.mark.parametrize("name", PIPELINES)
def test_images_of_a_pipeline(name, tmp_path):
    """From a file to the model's input, with one box that is always seen: all of the image."""
    path = str(tmp_path / "image.png")
    Image.fromarray(np.full((40, 60, 3), (200, 60, 60), np.uint8)).save(path)
    box = {"bbox": [0, 0, 60, 40], "bbox_mode": 0, "category_id": 3}
    record = {"file_name": path, "height": 40, "width": 60, "annotations": [box]}
    lazy = fragment(name, size=64)
    mapper = instantiate(lazy.dataloader.train.mapper)
    np.random.seed(0)
    for _ in range(20):
        result = mapper(record)
        assert result["image"].shape == (3, 64, 64)
        assert result["image"].dtype.is_floating_point
        (x0, y0, x1, y1), (label,) = (
            result["instances"].gt_boxes.tensor[0].tolist(),
            result["instances"].gt_classes.tolist(),
        )
        assert 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 64 and label == 3
    result = instantiate(lazy.dataloader.test.mapper)(record)
    expected = {
        "ssd": ((3, 64, 64), None, None),
        "centernet": ((3, 64, 64), (12, 2), (40, 60)),  # 40 | 31 + 1, 60 | 31 + 1
        "cornernet": ((3, 127, 127), (43, 33), (40, 60)),
    }[name]
    assert (tuple(result["image"].shape), result.get("border"), result.get("content_size")) == (
        expected
    )
    if name != "ssd":
        top, left = result["border"]
        corner = result["image"][:, 0, 0].tolist()
        assert corner == (pytest.approx(MEAN) if name == "cornernet" else [0, 0, 0])
        inner = result["image"][:, top : top + 40, left : left + 60]
        assert (inner.flatten(1).T == inner[:, 0, 0]).all()
        assert inner[:, 0, 0].tolist() == [200, 60, 60]


# yacs


def test_default_is_detectron2s_own():
    for cfg in (yacs(), yacs("INPUT.CROP.ENABLED", True), get_cfg()):
        for is_train in (True, False):
            expected = DatasetMapper.from_config(cfg, is_train)["augmentations"]
            assert str(yacs_augmentations(cfg, is_train)) == str(expected)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["INPUT.AUGMENTATIONS", "sdd"],
            "AUGMENTATIONS is 'sdd'; expected one of 'default', 'ssd', 'centernet', 'cornernet'",
        ),
        (["INPUT.SIZE", 300], "SIZE is 300, but INPUT.AUGMENTATIONS is 'default'; expected 0"),
        (["INPUT.AUGMENTATIONS", "ssd", "INPUT.SIZE", -1], "SIZE is -1; expected pixels"),
        (
            ["INPUT.AUGMENTATIONS", "ssd", "INPUT.MIN_SIZE_TEST", 300, "INPUT.RANDOM_FLIP", "none"],
            r"INPUT.SIZE and INPUT.FORMAT alone.*MIN_SIZE_TEST is 300, its default 800; \S+FLIP is",
        ),
        (
            ["INPUT.AUGMENTATIONS", "centernet", "INPUT.CROP.ENABLED", True],
            "INPUT.CROP is {'ENABLED': True",
        ),
    ],
)
def test_what_yacs_may_not_say(overrides, message):
    cfg = yacs(*overrides)
    with pytest.raises(ValueError, match=message):
        DetectionMapper(cfg, True)
    whole = model_zoo.get_config("COCO-Detection/gfl_R_50_FPN_1x.yaml")
    whole.merge_from_list(overrides)
    with pytest.raises(ValueError, match=message):
        check_config(whole)


def test_a_config_that_was_dumped_has_the_same():
    cfg = yacs("INPUT.AUGMENTATIONS", "cornernet", "INPUT.SIZE", 255)
    other = copy.deepcopy(cfg)
    other.merge_from_other_cfg(CfgNode.load_cfg(cfg.dump()))
    for is_train in (True, False):
        one, two = (yacs_augmentations(x, is_train) for x in (cfg, other))
        assert str(one) == str(two)


def test_grey_images_have_no_colours_to_distort():
    cfg = yacs("INPUT.AUGMENTATIONS", "ssd", "INPUT.FORMAT", "L", "MODEL.PIXEL_MEAN", [100.0])
    with pytest.raises(ValueError, match="PhotometricDistortion: image_format is 'L'"):
        DetectionMapper(cfg, True)


# Schedules


@pytest.mark.parametrize(
    ("name", "max_iter", "steps", "warmup", "factor"),
    [
        # 24 x 5 x 117 266 / 64 = 219 873.75
        ("ssd", 219874, (16 / 24, 22 / 24), 500, 0.001),
        # 28 x 5 x 117 266 / 128 = 128 259.7
        ("centernet", 128260, (18 / 28, 24 / 28), 1000, 0.001),
        # 210 x 117 266 / 50 = 492 517.2
        ("cornernet", 492517, (180 / 210,), 500, 1 / 3),
    ],
)
def test_schedules(tmp_path, name, max_iter, steps, warmup, factor):
    path = tmp_path / "config.py"
    source = (COMMON / "schedule.py").read_text()
    path.write_text(f"{source}\nfound = dict(max_iter=max_iter_{name})\n")
    cfg = LazyConfig.load(str(path))
    assert cfg.found.max_iter == max_iter
    schedule = instantiate(cfg[f"lr_multiplier_{name}"])
    places = [warmup / max_iter, *steps]
    assert schedule(0.0) == pytest.approx(factor)
    assert schedule(places[0] + 1e-4) == 1
    half = schedule(places[0] / 2)
    assert half == pytest.approx((1 + factor) / 2)
    for count, place in enumerate(steps):
        assert schedule(place - 1e-5) == pytest.approx(0.1**count)
        assert schedule(place + 1e-5) == pytest.approx(0.1 ** (count + 1))


def test_optimizers():
    cfg = LazyConfig.load(str(COMMON / "optim.py"))
    kinds = {name: cfg[f"optimizer_{name}"] for name in PIPELINES}
    for name, lr, clip in (("ssd", 2e-3, None), ("centernet", 0.02, 35), ("cornernet", 5e-4, 35)):
        assert (kinds[name].lr, kinds[name].max_grad_norm) == (lr, clip)
    assert kinds["ssd"].weight_decay == 5e-4 and kinds["centernet"].weight_decay == 1e-4
    assert kinds["cornernet"]._target_.__name__ == "Adam"
