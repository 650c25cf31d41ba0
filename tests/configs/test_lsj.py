"""The strong baseline: its numbers, and a short training with each piece on and off."""

import sys

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from gfocal import apply_overrides, model_zoo
from gfocal.data import CopyPaste, Mosaic
from gfocal.engine import LazyTrainer
from gfocal.solver import SGD, AdamW
from tests.helpers.trainings import records

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "COCO-Detection/gflv2_R_50_FPN_lsj_100ep.py"
SWITCHES = {
    "as it is": [],
    "mosaic and repeat factors": [
        "dataloader.mix=mosaic",
        "dataloader.train.sampler.repeat_thresh=0.5",
    ],
    "no mix, no jitter": ["dataloader.mix=none", "dataloader.jitter=[1,1]"],
    "as gfl's optimizer": [
        "optimizer=${alternatives.sgd}",
        "lr_multiplier=${alternatives.steps}",
        "train.ema_decay=0",
    ],
}


def config(*overrides):
    return apply_overrides(model_zoo.get_config(NAME), list(overrides))


def test_the_recipe():
    """The numbers of Detectron2's: 100 epochs of 64 images of 1024 x 1024, scale 0.1 to 2."""
    cfg = config()
    assert cfg.dataloader.train.total_batch_size == 64 and cfg.train.ema_decay == 0.9998
    assert abs(cfg.train.max_iter * 64 / 117266 - 100) < 0.01
    jitter, crop, _ = map(instantiate, cfg.dataloader.train.mapper.augmentations)
    assert (jitter.min_scale, jitter.max_scale, *crop.crop_size) == (0.1, 2.0, 1024, 1024)
    np.random.seed(0)
    images = [np.zeros(size, np.uint8) for size in ((480, 640, 3), (10, 4000, 3))]
    sizes = [jitter.get_transform(images[0]).new_w for _ in range(300)]
    assert 102 <= min(sizes) < 130 and 2000 < max(sizes) <= 2048
    mapper = instantiate(cfg.dataloader.train.mapper)
    assert mapper.use_instance_mask and mapper.recompute_boxes
    for _ in range(20):  # 4000 x 10 has 0.26 rows at a scale of 0.1
        assert mapper.augmentations.augs[0].get_transform(images[1]).new_h >= 1
    multiplier = instantiate(cfg.lr_multiplier)
    half = np.cos(np.pi / 2 * np.array([0, 2 / 3, 1])) ** 2
    assert [multiplier(x) for x in (0.00546, 2 / 3, 1.0)] == pytest.approx(half, abs=1e-3)
    assert multiplier(0) == pytest.approx(0.001)
    steps = instantiate(cfg.alternatives.steps)
    assert [steps(x) for x in (0.88, 0.89, 0.96, 0.97)] == pytest.approx([1, 0.1, 0.1, 0.01])
    # As many images later as Detectron2's: 163889 and 177546 of 184375.
    assert cfg.alternatives.steps.scheduler.milestones[:2] == pytest.approx(
        [163889 * 183228 / 184375, 177546 * 183228 / 184375], abs=2
    )


def test_norms_do_not_decay():
    cfg = config()
    cfg.optimizer.params.model = torch.nn.Sequential(
        torch.nn.Linear(2, 2), torch.nn.GroupNorm(1, 2)
    )
    groups = instantiate(cfg.optimizer).param_groups
    decays = [group["weight_decay"] for group in groups for _ in group["params"]]
    assert sorted(decays) == [0, 0, 0.05, 0.05]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("shapes")


class Quick(LazyTrainer):
    @classmethod
    def test(cls, *args, **kwargs):
        return {}


@pytest.fixture
def small(root, monkeypatch):
    """The recipe on 96 x 96 px of the shapes, with their small network, without shapely."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    monkeypatch.setitem(sys.modules, "shapely", None)

    def build(folder, *overrides):
        cfg, shapes = config(), model_zoo.get_config("quick_start/shapes_gflv2.py")
        cfg.model = shapes.model
        for split in ("train", "test"):
            cfg.dataloader[split].dataset.names = shapes.dataloader[split].dataset.names
            cfg.dataloader[split].dataset.names.update(num_images=8, image_size=128)
            cfg.dataloader[split].num_workers = 0
        tiny = ["dataloader.size=96", "dataloader.train.total_batch_size=2", "train.max_iter=2"]
        files = [f"train.output_dir={folder}", "train.init_checkpoint=", "train.log_period=1"]
        return apply_overrides(cfg, [*tiny, *files, "train.device=cpu", *overrides])

    return build


@pytest.mark.parametrize("kind", SWITCHES)
def test_a_short_training(kind, small, tmp_path):
    trainer = Quick(small(tmp_path, *SWITCHES[kind]))
    trainer.train()
    losses = [x["total_loss"] for x in records(tmp_path)]
    assert len(losses) == 2 and np.isfinite(losses).all()
    loader = trainer.data_loader
    steps = {"mosaic and repeat factors": [Mosaic], "no mix, no jitter": []}
    assert [type(step) for step in loader.mixing] == steps.get(kind, [CopyPaste])
    factors = loader.sampler._int_part + loader.sampler._frac_part
    assert (factors.max() > 1) == (kind == "mosaic and repeat factors")
    is_sgd = kind == "as gfl's optimizer"
    assert isinstance(trainer.optimizer, SGD if is_sgd else AdamW)
    assert (tmp_path / "model_final_ema.pth").exists() != is_sgd
    batch = next(iter(loader))
    assert all(x["image"].shape == (3, 96, 96) for x in batch)
    assert not any(x["instances"].has("gt_masks") for x in batch)
    if kind == "no mix, no jitter":
        assert all((x["image"][:, 95, 95] != 128).any() for x in batch)  # no padding


def test_a_resume_to_the_bit(small, tmp_path):
    """With copy-paste, repeated images, AdamW and averages: from the checkpoint in the middle."""
    keys = ["train.max_iter=4", "train.checkpointer.period=2", "train.deterministic=true"]
    keys += ["dataloader.train.sampler.repeat_thresh=0.5", "train.seed=3"]
    cfg = small(tmp_path, *keys)
    final = ("model_final.pth", "model_final_ema.pth")
    runs = []
    for resume in (False, True):
        trainer = Quick(cfg)
        trainer.resume_or_load(resume=resume)
        assert trainer.start_iter == 2 * resume
        trainer.train()
        runs.append([torch.load(tmp_path / name, weights_only=False)["model"] for name in final])
        (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    for whole, resumed in zip(*runs):
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
