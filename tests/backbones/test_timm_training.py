"""Trainings with a TimmBackbone: stopped and resumed, and when timm loads weights of its own."""

import pytest
import timm
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling.backbone.fpn import FPN

from gfocal import Predictor, model_zoo
from gfocal.backbones import LinearP6P7, TimmBackbone
from gfocal.config import without_pretraining
from gfocal.engine import LazyTrainer
from gfocal.weights import StrictCheckpointer, describe
from tests.helpers.tiny import make_gfl, make_input
from tests.scenarios.test_resume import differences, load, results, train

pytestmark = pytest.mark.usefixtures("one_thread")
FEW = ["train.max_iter=3", "train.checkpointer.period=1", "train.eval_period=0",
       "train.best_metric=", "train.validation_loss=False", "train.ema_decay=0",
       "dataloader.train.num_workers=0"]  # fmt: skip


def detector(name, **kwargs):
    """A LazyCall of a small one."""
    levels = ["res3", "res4", "res5"]
    return L(make_gfl)(
        backbone=L(FPN)(
            bottom_up=L(TimmBackbone)(name=name, out_features=levels, **kwargs),
            in_features=levels,
            out_channels=8,
            top_block=L(LinearP6P7)(in_channels=8, out_channels=8),
        ),
        test_score_thresh=0.0,
    )


@pytest.fixture
def loaded(monkeypatch):
    """What timm was told of pre-trained weights; it makes some up instead of downloading them."""
    calls = []
    create = timm.create_model

    def create_model(name, pretrained=False, **kwargs):
        calls.append(pretrained)
        with torch.random.fork_rng():
            torch.manual_seed(len(name))
            return create(name, **kwargs)

    monkeypatch.setattr("timm.create_model", create_model)
    return calls


def test_a_resume_is_exact(tmp_path, loaded):
    """The weights of the checkpoint count, whether timm loads others before or not."""
    model = detector("resnet18", pretrained=True, freeze_at=2)
    trainer = train(tmp_path, "whole", *FEW, model=model)
    train(tmp_path, "half", *FEW, model=model, stop_after=2)
    model.backbone.bottom_up.pretrained = False
    train(tmp_path, "half", *FEW, "train.seed=77", model=model)
    assert loaded == [True, True, False]
    assert results(tmp_path / "half") == results(tmp_path / "whole")
    names = ("half/model_final.pth", "whole/model_final.pth")
    assert differences(*(load(tmp_path / x) for x in names)) == []
    trainer.cfg.train.init_checkpoint = f"{tmp_path}/half/model_final.pth"
    assert LazyTrainer.evaluate(trainer.cfg)["bbox"]["score"] > 0
    assert loaded == [True, True, False, False]


@pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv3_small_100"])
def test_a_checkpoint_has_all(name, tmp_path):
    torch.manual_seed(0)
    models = [instantiate(detector(name)) for _ in range(2)]
    models[0]([make_input(64, 64, [[3.0, 2.0, 60.0, 58.0]])])  # batch norms count
    StrictCheckpointer(models[0], str(tmp_path)).save("model")
    x = torch.randn(2, 3, 64, 96)
    before = models[1].eval().predict(x)[1].cls_logits
    StrictCheckpointer(models[1]).load(f"{tmp_path}/model.pth")
    (_, found), (_, expected) = (model.eval().predict(x) for model in models)
    assert not torch.equal(found.cls_logits, before)
    assert torch.equal(found.cls_logits, expected.cls_logits)
    assert torch.equal(found.box_logits, expected.box_logits)


def test_a_trained_model_loads_no_others(tmp_path, loaded):
    file, path = tmp_path / "resnet18.pth", str(tmp_path / "model.pth")
    file.touch()
    cfg = model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.py")
    cfg.model.backbone.out_channels, cfg.model.head.conv_dims = 32, [32]
    cfg.model.backbone.bottom_up = L(TimmBackbone)(
        name="resnet18", out_features=["res3", "res4", "res5"], weights=str(file)
    )
    model = instantiate(cfg.model)
    torch.save({"model": model.state_dict(), "gfocal": describe(cfg, model=model).plain()}, path)
    file.unlink()  # it need not be on the machine that predicts
    assert loaded == [True]
    for predictor in (Predictor(path), Predictor(cfg, path)):
        found = predictor.model.state_dict()
        for key, value in model.state_dict().items():
            assert torch.equal(found[key].cpu(), value), key
    assert loaded == [True, False, False]


def test_without_pretraining_by_hand():
    cfg = detector("resnet18", weights="a.pth", pretrained=True)
    cfg.heads = [{"_target_": "gfocal.backbones.TimmBackbone", "pretrained": True}, None]
    cfg.other = {"_target_": "nowhere.Network", "pretrained": True, "depth": "${nothing}"}
    found = without_pretraining(cfg)
    assert found.backbone.bottom_up == detector("resnet18").backbone.bottom_up
    assert found.heads == [{"_target_": "gfocal.backbones.TimmBackbone"}, None]
    assert found.other.pretrained and cfg.backbone.bottom_up.pretrained
