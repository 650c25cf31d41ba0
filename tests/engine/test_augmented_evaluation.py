"""Test-time augmentation as trainers, evaluations and the Predictor use it."""

import numpy as np
import pytest
from detectron2.config import LazyCall as L

from gfocal.engine import LazyTrainer, Predictor
from tests.helpers.tiny import make_gfl


def test_a_lazy_config(toy_config, monkeypatch):
    models = []

    def inference(model, loader, evaluator):
        models.append(type(model).__name__)
        return {"bbox": {"AP": float(len(models))}}

    monkeypatch.setattr("gfocal.engine.lazy_trainer.inference_on_dataset", inference)
    cfg = toy_config("train.max_iter=2", "train.eval_period=1")
    cfg.train.test_augmentation = {"enabled": True, "min_sizes": [48], "max_size": 64}
    with pytest.raises(ValueError, match=r"^train.test_augmentation \(TEST.AUG\): .* ToyDetector"):
        LazyTrainer(cfg)
    cfg.model = L(make_gfl)(num_classes=2)
    trainer = LazyTrainer(cfg)
    results = trainer.train()
    assert models == ["GFL", "AugmentedDetector", "GFL"]  # in the middle, and at the end
    assert results == {"bbox_TTA": {"AP": 2.0}, "bbox": {"AP": 3.0}}
    weights = f"{cfg.train.output_dir}/model_final.pth"
    cfg.train.init_checkpoint = weights
    assert set(LazyTrainer.evaluate(cfg)) == {"bbox_TTA", "bbox"}
    image = np.zeros((48, 64, 3), np.uint8)
    predictor = Predictor(cfg, weights)
    calls = []
    predictor.augmented.register_forward_hook(lambda *_: calls.append(1))
    predictor(image)
    assert calls == [1]
    cfg.train.test_augmentation.enabled = False
    assert Predictor(cfg, weights).augmented is None
    assert set(LazyTrainer.evaluate(cfg)) == {"bbox"}
