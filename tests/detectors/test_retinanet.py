"""QFL on Detectron2's RetinaNet."""

import copy
from math import log
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, build_model
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, pairwise_iou
from detectron2.utils.events import EventStorage

from gfocal import model_zoo
from gfocal.config import add_gfocal_config
from gfocal.detectors.retinanet import QFLRetinaNet
from gfocal.engine import LazyTrainer
from gfocal.modeling.losses import quality_focal_loss
from tests.helpers.tiny import TinyBackbone, make_input
from tests.helpers.tiny_retinanet import make_retinanet

NUM_CLASSES = 3
TABLE_1B = [f"ablations/table1b/retinanet_R_50_FPN_1x_{loss}.py" for loss in ("focal", "qfl")]


@pytest.fixture(autouse=True)
def _storage():
    with EventStorage():
        yield


def make_batch():
    """Three boxes, one box and none."""
    return [
        make_input(64, 96, [[4, 4, 40, 36], [30, 20, 90, 60], [60, 2, 80, 40]], [0, 2, 1]),
        make_input(96, 64, [[10, 10, 60, 90]], [2]),
        make_input(64, 64),
    ]


def arguments_of_losses(model, batch):
    """What the model's forward hands to its ``losses``."""
    seen = []
    model.losses = lambda *args: seen.append(args) or {}
    model(batch)
    del model.losses
    return seen[0]


def test_by_hand():
    """K = 2, all logits 0 (score 1/2) and all deltas 0 (the box is the anchor), box (0, 0, 10, 10):

    anchor A is the box: IoU 1, class 0    losses 1/4 ln 2 (label 1) and 1/4 ln 2 (label 0)
    anchor B, twice as wide: IoU 1/2, class 1    1/4 ln 2 (label 0) and 0 (label 1/2)
    anchor C: ignored    none
    anchor D: background    2 * 1/4 ln 2

    The normaliser is 0.9 * 100 + 0.1 * 2. L1 of the deltas: A has none; B's centre has to move by
    -5 / 20 of its width, and its width to shrink by ln 2."""
    model = make_retinanet(num_classes=2)
    levels = [[0, 0, 10, 10], [0, 0, 20, 10], [0, 0, 12, 14]], [[50, 50, 70, 90]]
    anchors = [Boxes(torch.tensor(level, dtype=torch.float32)) for level in levels]
    losses = model.losses(
        anchors,
        [torch.zeros(1, 3, 2), torch.zeros(1, 1, 2)],
        [torch.tensor([0, 1, -1, 2])],
        [torch.zeros(1, 3, 4), torch.zeros(1, 1, 4)],
        [torch.tensor([[0.0, 0, 10, 10]]).expand(4, 4)],
    )
    assert losses["loss_cls"].item() == pytest.approx(5 / 4 * log(2) / 90.2)
    assert losses["loss_box_reg"].item() == pytest.approx((0.25 + log(2)) / 90.2)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_the_dense_definition(beta):
    """loss_cls and its gradient are QFL's on a label for every anchor and class; the other loss is
    RetinaNet's."""
    model = make_retinanet(qfl_beta=beta)
    args = arguments_of_losses(model, make_batch())
    anchors, pred_logits, gt_labels, pred_deltas, gt_boxes = args
    anchor_boxes = Boxes.cat(anchors).tensor
    logits = torch.cat(pred_logits, dim=1)
    labels = torch.zeros_like(logits)
    kinds = {"ignored": 0, "background": 0, "positive": 0}
    expected = 0
    for i, deltas in enumerate(torch.cat(pred_deltas, dim=1).detach()):
        boxes = Boxes(model.box2box_transform.apply_deltas(deltas, anchor_boxes))
        for r, label in enumerate(gt_labels[i].tolist()):
            if 0 <= label < NUM_CLASSES:
                kinds["positive"] += 1
                labels[i, r, label] = pairwise_iou(boxes[r], Boxes(gt_boxes[i][r : r + 1])).item()
            else:
                kinds["background" if label == NUM_CLASSES else "ignored"] += 1
        valid = gt_labels[i] >= 0
        expected += quality_focal_loss(logits[i, valid], labels[i, valid], beta, "sum")
    assert all(kinds.values()), kinds
    assert len(labels[labels > 0].unique()) > 5  # labels are soft
    expected = expected / (0.9 * 100 + 0.1 * kinds["positive"])

    reference = make_retinanet(cls=RetinaNet)
    with torch.no_grad():
        baseline = reference.losses(*args)
    losses = model.losses(*args)
    assert losses["loss_cls"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["loss_box_reg"].item() == pytest.approx(baseline["loss_box_reg"].item())
    weight = model.head.cls_score.weight
    (grad,) = torch.autograd.grad(losses["loss_cls"], weight, retain_graph=True)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, weight, retain_graph=True)[0])


def test_the_normaliser_is_retinanets():
    model, baseline = make_retinanet(), make_retinanet(cls=RetinaNet)
    for batch in (make_batch(), make_batch()[:1], make_batch()[2:]):
        model(batch)
        baseline(batch)
        assert model.loss_normalizer == pytest.approx(baseline.loss_normalizer)
        assert model.loss_normalizer != 100


def test_the_label_passes_no_gradient():
    model = make_retinanet()
    loss = model(make_batch())["loss_cls"]
    parameters = dict(model.named_parameters())
    grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    for name, grad in zip(parameters, grads):
        if name.startswith(("head.bbox_subnet", "head.bbox_pred")):
            assert grad is None, name
        else:
            assert grad.isfinite().all() and grad.any(), name


@pytest.mark.parametrize("box_reg_loss_type", ["smooth_l1", "giou"])
def test_a_batch_without_boxes(box_reg_loss_type):
    """Only the labels 0 are left, whose loss does not care about the box."""
    model = make_retinanet(box_reg_loss_type=box_reg_loss_type)
    batch = [make_input(64, 64), make_input(64, 96)]
    logits = torch.cat(arguments_of_losses(model, batch)[1], dim=1)
    losses = model(batch)
    expected = quality_focal_loss(logits, torch.zeros_like(logits), reduction="sum")
    assert losses["loss_cls"].item() == pytest.approx(expected.item() / 90.1, rel=1e-5)
    assert losses["loss_box_reg"].item() == 0
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_autocast():
    model, batch = make_retinanet(), make_batch()
    exact = copy.deepcopy(model)(batch)["loss_cls"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch)
    assert losses["loss_cls"].dtype == torch.float32
    assert losses["loss_cls"].item() == pytest.approx(exact.item(), rel=0.05)
    sum(losses.values()).backward()
    assert model.head.cls_score.weight.grad.isfinite().all()


def test_inference_is_retinanets():
    """The class score alone is the score, and the boxes come from the same deltas."""
    model = make_retinanet(test_score_thresh=0.0).eval()
    baseline = make_retinanet(cls=RetinaNet, test_score_thresh=0.0).eval()
    baseline.load_state_dict(model.state_dict())
    batch = make_batch()
    with torch.no_grad():
        for ours, theirs in zip(model(batch), baseline(batch)):
            ours, theirs = ours["instances"], theirs["instances"]
            assert len(ours) > 0 and torch.equal(ours.scores, theirs.scores)
            assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
            assert torch.equal(ours.pred_classes, theirs.pred_classes)


def test_a_beta_that_qfl_does_not_have():
    with pytest.raises(ValueError, match=r"beta is 0\.5"):
        make_retinanet(qfl_beta=0.5)


@BACKBONE_REGISTRY.register()
def tiny_backbone_of_qfl_retinanet(cfg, input_shape):
    return TinyBackbone()


def yacs_config(with_gfl=True):
    cfg = get_cfg()
    if with_gfl:
        add_gfocal_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "QFLRetinaNet"
    cfg.MODEL.BACKBONE.NAME = "tiny_backbone_of_qfl_retinanet"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RETINANET.IN_FEATURES = ["p3", "p4"]
    cfg.MODEL.RETINANET.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64]]
    return cfg


@pytest.mark.parametrize("beta", [None, 1.5])
def test_yacs(beta):
    """MODEL.GFL.QFL_BETA is read where there is such a key."""
    cfg = yacs_config(with_gfl=beta is not None)
    if beta is not None:
        cfg.MODEL.GFL.QFL_BETA = beta
    model = build_model(cfg)
    assert type(model) is QFLRetinaNet is META_ARCH_REGISTRY.get("QFLRetinaNet")
    assert model.qfl_beta == (2.0 if beta is None else beta)
    assert set(model(make_batch())) == {"loss_cls", "loss_box_reg"}
    assert all("instances" in x for x in model.eval()(make_batch()))


@pytest.mark.parametrize(("key", "value"), [("REG_MAX", 99), ("ATSS_TOPK", 3), ("DGQP.TOPK", 2)])
def test_yacs_numbers_of_other_parts(key, value):
    cfg = yacs_config()
    cfg.merge_from_list([f"MODEL.GFL.{key}", value])
    with pytest.raises(ValueError, match=rf"MODEL.GFL.{key} is {value}, but QFLRetinaNet does not"):
        build_model(cfg)


def test_the_configs_of_table_1b():
    """The two differ in the loss of the classes alone, and train as our R-50 at 1x does."""
    ours = model_zoo.get_config("COCO-Detection/gfl_R_50_FPN_1x.py")
    focal, qfl = map(model_zoo.get_config, TABLE_1B)
    assert qfl.model.pop("qfl_beta") == 2.0
    assert (focal.model.pop("focal_loss_alpha"), focal.model.pop("focal_loss_gamma")) == (0.25, 2.0)
    targets = [instantiate(cfg.model.pop("_target_")) for cfg in (focal, qfl)]
    assert targets == [RetinaNet, QFLRetinaNet]
    papers = [cfg.pop("paper").AP for cfg in (focal, qfl)]
    assert papers == [35.6, 36.4]
    assert focal == qfl
    for key in ("dataloader", "optimizer", "lr_multiplier", "train"):
        assert focal[key] == ours[key], key
    assert focal.model.backbone.bottom_up == ours.model.backbone.bottom_up
    for key in ("pixel_mean", "pixel_std", "input_format"):
        assert focal.model[key] == ours.model[key], key


@pytest.mark.parametrize("name", TABLE_1B)
def test_a_config_of_table_1b_is_plain(name, tmp_path):
    """As text it is the same config; 9 anchors a location, for 5 levels and 80 classes."""
    cfg = model_zoo.get_config(name)
    file = tmp_path / "config.yaml"
    LazyConfig.save(cfg, str(file))
    assert not Path(f"{file}.pkl").exists()
    with torch.device("meta"):
        models = [instantiate(x.model) for x in (cfg, LazyConfig.load(str(file)))]
    assert str(models[0]) == str(models[1]) and type(models[0]) is type(models[1])
    assert models[0].head.cls_score.out_channels == 9 * 80
    assert models[0].anchor_generator.num_cell_anchors == [9] * 5
    assert type(models[0]).__name__ == ("QFLRetinaNet" if "qfl" in name else "RetinaNet")


@pytest.mark.parametrize("name", TABLE_1B)
def test_a_config_of_table_1b_trains(name, tmp_path, monkeypatch):
    """Two iterations and an evaluation on the generated shapes, with the small backbone of
    quick_start."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    cfg, small = map(model_zoo.get_config, (name, "quick_start/shapes_gflv2.py"))
    cfg.dataloader = small.dataloader
    for loader in (cfg.dataloader.train, cfg.dataloader.test):
        loader.num_workers = 0
        loader.dataset.names.update(num_images=4, image_size=128)
        loader.mapper.augmentations[0].short_edge_length = 64
    cfg.dataloader.train.total_batch_size = 2
    cfg.model.num_classes = 6
    cfg.model.head.conv_dims = [32]
    cfg.model.backbone.bottom_up = small.model.backbone.bottom_up
    cfg.model.backbone.out_channels = 32
    cfg.model.backbone.top_block.in_channels = 256  # of the small res5
    cfg.train.update(max_iter=2, eval_period=2, init_checkpoint="", device="cpu")
    cfg.train.output_dir = str(tmp_path / "output")
    trainer = LazyTrainer(cfg)
    trainer.resume_or_load(resume=False)
    assert "AP50" in trainer.train()["bbox"]
    assert trainer.storage.latest()["num_pos_anchors"][0] > 0
