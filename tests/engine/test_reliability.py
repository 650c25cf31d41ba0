"""`train.reliability`: evaluations also measure reliability, and are otherwise the same."""

import copy
import json

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gfocal.config import load_config
from gfocal.data import dataset_evaluator, detection_dataset_dicts
from gfocal.engine import LazyTrainer, Trainer
from gfocal.inspect.reliability import DetectionReliabilityEvaluator
from tests.helpers import resume_config
from tests.helpers.toy import toy_dataset
from tests.helpers.trainings import ROOT, records

pytestmark = pytest.mark.usefixtures("one_thread")
NOISY = str(ROOT / "tests/helpers/resume_config.py")
YACS = """
MODEL: {META_ARCHITECTURE: ToyDetector, DEVICE: cpu, RETINANET: {NUM_CLASSES: 2}}
INPUT: {MIN_SIZE_TRAIN: [48], MIN_SIZE_TEST: 48, RANDOM_FLIP: none}
DATASETS: {TRAIN: [toy_yacs], TEST: [toy_yacs]}
DATALOADER: {NUM_WORKERS: 0}
SOLVER: {IMS_PER_BATCH: 2, BASE_LR: 0.1, MAX_ITER: 40, STEPS: [], WARMUP_ITERS: 1}
TEST: {RELIABILITY: true}
"""


@pytest.fixture
def noisy(tmp_path):
    """A function that loads a LazyConfig of a GFL with dropout and batch norm, and evaluates it on
    a registered dataset."""
    dicts = resume_config.images(f"{tmp_path}/images", 3)
    DatasetCatalog.register("noisy_val", lambda: copy.deepcopy(dicts))
    MetadataCatalog.get("noisy_val").set(thing_classes=["a", "b", "c"])

    def load(name, *overrides):
        cfg = load_config(
            NOISY,
            [
                *(f"data.folder={tmp_path}/images", f"train.output_dir={tmp_path}/{name}"),
                *("train.max_iter=4", "train.eval_period=2", "train.best_metric=''"),
                "dataloader.train.num_workers=0",
            ],
        )
        names = "noisy_val"
        cfg.dataloader.test.dataset = L(detection_dataset_dicts)(names=names, filter_empty=False)
        cfg.dataloader.evaluator = L(dataset_evaluator)(
            dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"
        )
        cfg.train.update(OmegaConf.from_dotlist(list(overrides)))
        return cfg

    return load


def trained(cfg):
    trainer = LazyTrainer(cfg)
    return trainer, trainer.train()


def test_a_lazy_training_is_the_same_to_the_bit(noisy, tmp_path):
    plain, without = trained(noisy("plain"))
    ours, results = trained(noisy("ours", "reliability=true"))
    assert "reliability" not in without
    found = results.pop("reliability")
    assert "reliability" in results["ema"]
    assert found["detections"] > 0
    assert {"LaECE", "std_spearman", "coverage80_bins", "oLRP-a"} <= found.keys()
    # The detections are those of COCO's evaluator alone.
    written = [
        json.loads((tmp_path / x / "inference/coco_instances_results.json").read_text())
        for x in ("plain", "ours")
    ]
    assert written[0] == written[1]
    assert "bin_edges" not in written[1][0]
    np.testing.assert_equal(results["bbox"], without["bbox"])
    # Weights, momentum, statistics and random states.
    for a, b in zip(plain.model.state_dict().values(), ours.model.state_dict().values()):
        assert torch.equal(a, b)
    assert not ours.model.postprocess.distributions
    states = [torch.load(tmp_path / x / "model_final.pth")["trainer"] for x in ("plain", "ours")]
    assert repr(states[0]["rng"]) == repr(states[1]["rng"])
    for a, b in zip(states[0]["rng"], states[1]["rng"]):
        assert torch.equal(a["torch"], b["torch"])
        assert torch.equal(a["numpy"][1], b["numpy"][1])
    # The numbers are beside AP, after each evaluation.
    lines = [x for x in records(tmp_path / "ours") if "reliability/LaECE" in x]
    assert [x["iteration"] for x in lines] == [1, 4]
    assert "bbox/AP" in lines[0]
    assert "ema/reliability/LaECE" in lines[0]
    for name in ("json", "png"):
        assert (tmp_path / f"ours/inference/reliability.{name}").is_file()
    # And in TensorBoard's file, the same numbers at the same iterations.
    events = EventAccumulator(f"{tmp_path}/ours").Reload()
    assert len([x for x in lines[-1] if "reliability/" in x]) > 50
    for name in filter(lambda x: "reliability/" in x, lines[-1]):
        shown = [(x.step, x.value) for x in events.Scalars(name)]
        expected = [(x["iteration"], x[name]) for x in lines]
        np.testing.assert_allclose(shown, expected, rtol=1e-6, err_msg=name)
    events = EventAccumulator(f"{tmp_path}/plain").Reload()
    assert not [x for x in events.Tags()["scalars"] if "reliability" in x]


def test_a_metric_of_it_can_decide_which_weights_are_best(noisy, tmp_path):
    metric = "best_metric=reliability/oLRP"
    _, results = trained(noisy("best", "reliability=true", metric, "best_mode=min"))
    best = torch.load(tmp_path / "best/model_best.pth")
    assert best["reliability/oLRP"] <= results["reliability"]["oLRP"]
    with pytest.raises(ValueError, match="best_metric is 'reliability/oLPR'.*; did you mean rel"):
        LazyTrainer(noisy("best", "reliability=true", "best_metric=reliability/oLPR"))
    with pytest.raises(ValueError, match="'reliability/oLRP', but reliability .* is False"):
        LazyTrainer(noisy("best", metric))


def test_a_dataset_that_it_cannot_be_measured_on_is_refused_at_the_start(noisy, toy_config):
    MetadataCatalog.get("noisy_val").evaluator_type = "lvis"
    cfg = noisy("lvis", "reliability=true")
    del cfg.dataloader.evaluator.dataset_name
    cfg.dataloader.evaluator = L(DetectionReliabilityEvaluator)(dataset_name="other")
    DatasetCatalog.register("other", DatasetCatalog["noisy_val"])
    MetadataCatalog.get("other").set(thing_classes=["a", "b", "c"])
    with pytest.raises(
        ValueError, match=r"^train.reliability \(TEST.RELIABILITY\) is true: .*lvis"
    ):
        LazyTrainer(cfg)
    cfg = toy_config("+train.reliability=true")
    cfg.dataloader.test.dataset.names = None
    with pytest.raises(ValueError, match="is true, but the test dataset has no name"):
        LazyTrainer(cfg)


def test_evaluators_that_are_given_stay_alone(noisy):
    cfg = noisy("given", "reliability=true")
    model = LazyTrainer.build_model(cfg)
    assert {*LazyTrainer.test(cfg, model, dataset_evaluator("noisy_val"))} == {"bbox"}
    # One that is given has its distributions.
    alone = LazyTrainer.test(cfg, model, DetectionReliabilityEvaluator("noisy_val"))
    assert alone["reliability"].keys() == LazyTrainer.test(cfg, model)["reliability"].keys()
    assert "nll_bins" in alone["reliability"]


@pytest.fixture
def yacs(tmp_path):
    """A function that loads a yacs config with TEST.RELIABILITY; its two datasets are one image."""
    (tmp_path / "toy.yaml").write_text(YACS)
    for name in ("toy_yacs", "toy_more"):
        DatasetCatalog.register(name, lambda: toy_dataset(f"{tmp_path}/images", "yacs", 1))
        MetadataCatalog.get(name).set(thing_classes=["square", "wide"])

    def load(*overrides):
        return load_config(tmp_path / "toy.yaml", ["OUTPUT_DIR", f"{tmp_path}/out", *overrides])

    return load


def test_yacs(yacs, tmp_path, caplog):
    """A detector of somebody else, learned by heart."""
    with caplog.at_level("INFO"):
        results = Trainer(yacs("TEST.BEST_METRIC=reliability/oLRP", "TEST.BEST_MODE=min")).train()
    assert "no pred_box_stds" in caplog.text
    found = results["reliability"]
    assert (found["matched"], found["LRP_FN"], found["objects"]) == (1, 0, 1)
    assert found["LaECE"] == found["LaACE"]  # of one detection
    assert "std_spearman" not in found
    assert records(tmp_path / "out")[-1]["reliability/oLRP"] == found["oLRP"]
    assert (tmp_path / "out/inference/reliability.png").is_file()
    again = Trainer.evaluate(yacs(), resume=True)
    assert again["reliability"] == pytest.approx(found, nan_ok=True)
    assert {*Trainer.evaluate(yacs("TEST.RELIABILITY=False"), resume=True)} == {"bbox"}
    with pytest.raises(ValueError, match="which no evaluation will give; did you mean reliability"):
        Trainer(yacs("TEST.BEST_METRIC=reliability/LRPs"))


def test_yacs_with_several_datasets(yacs, tmp_path):
    both = "DATASETS.TEST=('toy_yacs', 'toy_more')"
    metric = "TEST.BEST_METRIC=toy_more/reliability/LaECE"
    results = Trainer(yacs(both, metric, "SOLVER.MAX_ITER=2")).train()
    for name in ("toy_yacs", "toy_more"):
        assert results[name].keys() == {"bbox", "reliability"}
        report = json.loads((tmp_path / "out/inference" / name / "reliability.json").read_text())
        assert report["dataset"] == name
