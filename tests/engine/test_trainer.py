"""The yacs trainer, on a toy detector and real COCO evaluation."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from omegaconf import DictConfig

from gfocal.data import DetectionMapper
from gfocal.engine import AutocastTrainer, LazyTrainer, Trainer, load_config, trainer_class
from gfocal.engine.steps import AccumulatingTrainer
from gfocal.engine.trainer import _mapper
from tests.helpers.toy import ToyDetector, toy_dataset

YACS = """
MODEL: {META_ARCHITECTURE: ToyDetector, DEVICE: cpu, RETINANET: {NUM_CLASSES: 2}}
INPUT: {MIN_SIZE_TRAIN: [48], MIN_SIZE_TEST: 48, RANDOM_FLIP: none}
DATASETS: {TRAIN: [toy_yacs], TEST: [toy_yacs]}
DATALOADER: {NUM_WORKERS: 0}
SOLVER: {IMS_PER_BATCH: 2, BASE_LR: 0.1, MAX_ITER: 6, STEPS: [5], WARMUP_ITERS: 1,
         CHECKPOINT_PERIOD: 3}
"""


@pytest.fixture
def config(tmp_path: Path):
    """A function that loads a yacs config with overrides; the dataset is one image."""
    (tmp_path / "toy.yaml").write_text(YACS)
    DatasetCatalog.register("toy_yacs", lambda: toy_dataset(f"{tmp_path}/images", "yacs", 1))
    MetadataCatalog.get("toy_yacs").set(thing_classes=["square", "wide"])

    def load(*overrides: str):
        return load_config(tmp_path / "toy.yaml", ["OUTPUT_DIR", f"{tmp_path}/out", *overrides])

    yield load
    DatasetCatalog.remove("toy_yacs")
    MetadataCatalog.remove("toy_yacs")


class WithNorm(ToyDetector):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = torch.nn.BatchNorm1d(3)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_trains_and_returns_coco_results(config, tmp_path):
    trainer = Trainer(config("SOLVER.MAX_ITER=60", "SOLVER.STEPS=(50,)"))
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    assert results["bbox"]["AP50"] == pytest.approx(100)  # one image, learned by heart
    last = (tmp_path / "out" / "metrics.json").read_text().splitlines()[-1]
    assert json.loads(last)["bbox/AP"] == results["bbox"]["AP"]
    assert Trainer.evaluate(trainer.cfg, resume=True)["bbox"]["AP"] == results["bbox"]["AP"]


def test_each_of_several_test_datasets_has_its_folder(config, tmp_path):
    dicts = DatasetCatalog.get("toy_yacs")
    DatasetCatalog.register("toy_more", lambda: dicts[:1])
    MetadataCatalog.get("toy_more").set(thing_classes=["square", "wide"])
    both = "DATASETS.TEST=('toy_yacs', 'toy_more')"
    cfg = config(both, "SOLVER.MAX_ITER=1", "SOLVER.STEPS=()", "TEST.BEST_METRIC=toy_more/bbox/AP")
    results = Trainer(cfg).train()
    assert {*results} == {"toy_yacs", "toy_more"}
    for name in results:
        assert (tmp_path / "out/inference" / name / "coco_instances_results.json").is_file()
    for metric, text in [
        ("bbox/AP", "several test datasets: .* e.g. toy_yacs/bbox/AP"),
        ("toy_more/bbox/APX", "did you mean bbox/AP"),
    ]:
        with pytest.raises(ValueError, match=text):
            Trainer(config(both, f"TEST.BEST_METRIC={metric}"))
    assert Trainer.evaluate(cfg, resume=True).keys() == results.keys()


@pytest.mark.parametrize("metric", ["bbox/APX", "ema/bbox/ap", "segm/AP", "bbox/AP-round"])
def test_a_best_metric_that_no_evaluation_gives(config, metric):
    with pytest.raises(ValueError, match="which no evaluation will give"):
        Trainer(config(f"TEST.BEST_METRIC={metric}", "SOLVER.EMA_DECAY=0.9"))
    Trainer(config("TEST.BEST_METRIC=bbox/AP-wide"))


def test_expected_results(config):
    good, bad = ([["bbox", "AP50", x, 1.0]] for x in (100.0, 30.0))
    trainer = Trainer(config("SOLVER.MAX_ITER=60", "SOLVER.STEPS=(50,)"))
    trainer.resume_or_load(resume=False)
    trainer.train()
    Trainer.evaluate(config("TEST.EXPECTED_RESULTS", str(good)), resume=True)
    with pytest.raises(SystemExit) as end:
        Trainer.evaluate(config("TEST.EXPECTED_RESULTS", str(bad)), resume=True)
    assert end.value.code == 1
    for wrong in ([["bbox", "AP50", 30.0]], [["bbox", "AP50", "x", 1]], ["bbox"]):
        with pytest.raises(ValueError, match="TEST.EXPECTED_RESULTS is"):
            Trainer(config("TEST.EXPECTED_RESULTS", str(wrong)))
    for task, metric in (("bbox", "APx"), ("segm", "AP")):
        with pytest.raises(ValueError, match="TEST.EXPECTED_RESULTS is .* no evaluation will give"):
            Trainer(config("TEST.EXPECTED_RESULTS", str([[task, metric, 1.0, 1.0]])))
    with pytest.raises(ValueError, match="TEST.EXPECTED_RESULTS .* 'segm'.* gives bbox"):
        cfg = config("TEST.EXPECTED_RESULTS", str([["segm", "AP", 1.0, 1.0]]))
        Trainer.evaluate(cfg, resume=True)
    with pytest.raises(ValueError, match=r"but DATASETS.TEST is \(\)"):
        Trainer(config("TEST.EXPECTED_RESULTS", str(good), "DATASETS.TEST", "()"))


def test_expected_results_of_several_datasets_and_of_every_end(config):
    """Detectron2 looks for the tasks of one dataset, and only after the last iteration."""
    DatasetCatalog.register("toy_more", lambda: DatasetCatalog.get("toy_yacs"))
    MetadataCatalog.get("toy_more").set(thing_classes=["square", "wide"])
    expected = [[f"{name}/bbox", "AP50", 30.0, 100.0] for name in ("toy_yacs", "toy_more")]
    overrides = ["DATASETS.TEST=('toy_yacs', 'toy_more')", "SOLVER.STEPS=()", "SOLVER.MAX_ITER=9"]
    Trainer(config(*overrides, "TEST.EXPECTED_RESULTS", str(expected))).train()
    expected[1][2] = 900.0
    overrides += ["TEST.EXPECTED_RESULTS", str(expected)]
    with pytest.raises(SystemExit):
        Trainer.evaluate(config(*overrides), resume=True)
    early = [
        "TEST.BEST_METRIC=toy_yacs/bbox/AP",
        "TEST.EARLY_STOP_PATIENCE=1",
        "TEST.EVAL_PERIOD=1",
    ]
    with pytest.raises(SystemExit):
        Trainer(config(*overrides, *early, "SOLVER.BASE_LR=0.0")).train()


@pytest.mark.parametrize("amp", [False, True])
def test_several_batches_a_step(config, amp):
    trainer = Trainer(config("SOLVER.ACCUMULATE=3", f"SOLVER.AMP.ENABLED={amp}"))
    assert type(trainer._trainer) is AccumulatingTrainer
    trainer.train()
    assert trainer.data_loader.num_batches == 18
    with pytest.raises(ValueError, match="SOLVER.ACCUMULATE is 0; expected an integer, at least 1"):
        Trainer(config("SOLVER.ACCUMULATE=0"))


def test_resume_restores_the_momentum(config):
    torch.manual_seed(0)
    whole = Trainer(config())
    whole.train()
    torch.manual_seed(0)
    half = Trainer(config())
    half.max_iter = 3
    half.train()
    torch.manual_seed(5)
    rest = Trainer(config())
    rest.resume_or_load(resume=True)
    assert rest.start_iter == 3
    rest.train()
    torch.testing.assert_close(weights(rest), weights(whole), rtol=0, atol=0)


EXTRAS = (
    "SEED=4", "DETERMINISTIC=True", "SOLVER.EMA_DECAY=0.9", "TEST.EVAL_PERIOD=2",
    "TEST.VALIDATION_LOSS=True", "TEST.BEST_METRIC=validation/total_loss", "TEST.BEST_MODE=min",
    "INPUT.MIN_SIZE_TRAIN=(40,48,56)", "INPUT.RANDOM_FLIP=horizontal",
)  # fmt: skip


def test_what_else_a_yacs_config_can_ask_for(config, tmp_path):
    before = torch.are_deterministic_algorithms_enabled()
    try:
        trainer = Trainer(config(*EXTRAS))
        results = trainer.train()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)
    assert results["validation"]["total_loss"] > 0
    assert results["ema"]["bbox"].keys() == results["bbox"].keys()
    names = {x.name for x in (tmp_path / "out").glob("*.pth")}
    assert names >= {"model_best.pth", "model_final.pth", "model_final_ema.pth"}
    losses = [x for x, _ in trainer.storage.history("validation/total_loss").values()]
    assert trainer._best.best == min(losses)
    stopped = Trainer(config(*EXTRAS, "TEST.EARLY_STOP_PATIENCE=1", "TEST.BEST_MODE=max"))
    stopped.train()
    assert stopped.iter == 3  # the loss goes down: the second evaluation is no better


def test_resume_is_exact(config):
    options = [x for x in EXTRAS if "DETERMINISTIC" not in x]
    whole = Trainer(config(*options))
    whole.train()
    half = Trainer(config(*options))
    half.max_iter = 3
    half.train()
    rest = Trainer(config(*options, "SEED=99"))
    rest.resume_or_load(resume=True)
    rest.train()
    torch.testing.assert_close(weights(rest), weights(whole), rtol=0, atol=0)
    assert rest.storage.latest()["total_loss"] == whole.storage.latest()["total_loss"]
    assert rest._best.best == whole._best.best
    for key, value in whole._ema.state_dict().items():
        assert torch.equal(rest._ema.state_dict()[key], value), key


def test_proposals_are_read_as_detectron2_reads_them(config):
    assert type(Trainer.build_train_loader(config()).mapper) is DetectionMapper
    masks = _mapper(config("MODEL.MASK_ON=True"), is_train=True)
    assert type(masks) is DetectionMapper and masks.use_instance_mask
    proposals = _mapper(config("MODEL.LOAD_PROPOSALS=True"), is_train=True)
    assert type(proposals) is DatasetMapper


def test_precise_bn_is_kept(config, monkeypatch):
    def hooks():
        return [type(x).__name__ for x in Trainer(config("TEST.PRECISE_BN.ENABLED=True"))._hooks]

    assert "PreciseBN" not in hooks()  # nothing to make precise in the toy detector
    build = classmethod(lambda cls, cfg: WithNorm(num_classes=2))
    monkeypatch.setattr(Trainer, "build_model", build)
    assert hooks().index("PreciseBN") < hooks().index("CheckpointHook")


def test_amp_on_a_cpu(config):
    trainer = Trainer(config("SOLVER.AMP.ENABLED=True"))
    assert isinstance(trainer._trainer, AutocastTrainer)
    before = weights(trainer)
    dtypes = []
    trainer.model.register_forward_hook(lambda m, i, o: dtypes.append(m.seen_dtype))
    trainer.train()
    # Training steps in bfloat16, the evaluation at the end as in production: float32.
    assert dtypes[:6] == [torch.bfloat16] * 6
    assert dtypes[-1] == torch.float32
    assert not torch.equal(weights(trainer), before)


def test_which_trainer_for_which_config(config):
    assert trainer_class(config()) is Trainer
    assert trainer_class(DictConfig({})) is LazyTrainer
    with pytest.raises(TypeError, match="DictConfig.*LazyTrainer"):
        Trainer(DictConfig({}))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device.*MODEL.DEVICE=cpu"):
            Trainer(config("MODEL.DEVICE=cuda"))
        with pytest.raises(ValueError, match="no CUDA device.*MODEL.DEVICE=cpu"):
            Trainer.evaluate(config("MODEL.DEVICE=cuda", f"MODEL.WEIGHTS={__file__}"))


def test_the_number_of_classes_is_the_datasets(config):
    cfg = config("MODEL.META_ARCHITECTURE=GFL", "MODEL.GFL.NUM_CLASSES=7")
    for build in (
        Trainer.build_train_loader,
        lambda cfg: Trainer.build_test_loader(cfg, "toy_yacs"),
    ):
        with pytest.raises(
            ValueError, match=r"MODEL\.GFL\.NUM_CLASSES is 7, but dataset 'toy_yacs' has 2 classes"
        ):
            build(cfg)
    cfg.MODEL.GFL.NUM_CLASSES = 2
    assert len(Trainer.build_test_loader(cfg, "toy_yacs")) == 1
    cfg.MODEL.GFL.NUM_CLASSES = 7
    cfg.MODEL.META_ARCHITECTURE = "ToyDetector"  # which has no node of its name
    assert len(Trainer.build_test_loader(cfg, "toy_yacs")) == 1
    cfg.MODEL.ToyDetector = CfgNode({"NUM_CLASSES": 3})
    with pytest.raises(ValueError, match=r"MODEL\.ToyDetector\.NUM_CLASSES is 3, but dataset"):
        Trainer.build_test_loader(cfg, "toy_yacs")
    del MetadataCatalog.get("toy_yacs").thing_classes  # nothing to compare with
    assert len(Trainer.build_test_loader(cfg, "toy_yacs")) == 1


def test_missing_files_of_a_dataset_are_named(config, tmp_path):
    MetadataCatalog.get("toy_yacs").set(json_file=f"{tmp_path}/none.json", image_root=str(tmp_path))
    for build in (
        Trainer.build_train_loader,
        lambda cfg: Trainer.build_test_loader(cfg, "toy_yacs"),
    ):
        with pytest.raises(FileNotFoundError, match=r"none\.json.*DETECTRON2_DATASETS"):
            build(config())


def test_a_missing_dataset_to_evaluate_on_is_named_before_the_training(config):
    with pytest.raises(ValueError, match="no dataset 'toy_val_yacs' is registered"):
        Trainer(config("DATASETS.TEST=('toy_val_yacs',)"))
    with pytest.raises(ValueError, match=r"DATASETS.TRAIN is \(\); expected at least one dataset"):
        Trainer(config("DATASETS.TRAIN=()"))
    with pytest.raises(ValueError, match="SOLVER.CHECKPOINT_PERIOD is 0; expected an integer"):
        Trainer(config("SOLVER.CHECKPOINT_PERIOD=0"))


def test_images_of_crowds_alone_take_part_where_crowds_are_ignored(config, tmp_path):
    dicts = toy_dataset(f"{tmp_path}/images", "yacs", 2)
    dicts[0]["annotations"][0]["iscrowd"] = 1
    DatasetCatalog.remove("toy_yacs")
    DatasetCatalog.register("toy_yacs", lambda: dicts)
    grouping = "DATALOADER.ASPECT_RATIO_GROUPING=False"
    assert len(Trainer.build_train_loader(config(grouping)).dataset) == 1
    loader = Trainer.build_train_loader(config(grouping, "INPUT.CROWDS=ignore"))
    assert len(loader.dataset) == 2
    regions = {x["image_id"]: len(x["ignore_regions"]) for x in next(iter(loader))}
    assert regions == {0: 1, 1: 0}


def test_repeat_factors(config):
    """A key of Detectron2's; the trainer's loader takes the sampler, and resumes it."""
    keys = ["DATALOADER.SAMPLER_TRAIN=RepeatFactorTrainingSampler", "SOLVER.MAX_ITER=4"]
    trainer = Trainer(config(*keys, "SOLVER.STEPS=()", "DATALOADER.REPEAT_THRESHOLD=0.5"))
    sampler = trainer.data_loader.sampler
    assert type(sampler).__name__ == "RepeatFactorTrainingSampler"
    trainer.train()
    state = trainer.data_loader.state_dict()
    assert (state["sampler_seed"], state["num_batches"]) == (sampler._seed, 4)
