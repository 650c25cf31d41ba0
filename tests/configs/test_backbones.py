"""The configs of Detectron2's own backbones: ViTDet, Swin, MViTv2 and RegNet, made small."""

import re

import pytest
import torch
from detectron2.config import instantiate

from gfocal import Predictor, model_zoo
from gfocal._installed import MissingPackageError
from gfocal.backbones import from_detectron2_main
from gfocal.cli import train
from gfocal.config import apply_overrides, check_config
from gfocal.solver import vit_lr_decay
from gfocal.weights import GFLCheckpointer, describe
from tests.helpers.detectron2_main import OF_MAIN, needs_main
from tests.helpers.tiny import make_input

pytestmark = pytest.mark.usefixtures("one_thread")
VIT, SWIN, MVIT, REGNET = (
    "gflv2_ViTDet_B_100ep",
    "gflv2_Swin_T_FPN_3x",
    "gflv2_MViTv2_T_FPN_36ep",
    "gflv2_RegNetX_4GF_FPN_1x",
)
SMALL = {
    VIT: [
        "model.backbone.square_pad=128",
        "model.backbone.net.embed_dim=32",
        "model.backbone.net.depth=4",
        "model.backbone.net.num_heads=2",
        "model.backbone.net.window_size=3",
        "model.backbone.net.window_block_indexes=[0,2]",
    ],
    SWIN: [
        "model.backbone.bottom_up.embed_dim=12",
        "model.backbone.bottom_up.depths=[1,2,2,1]",
        "model.backbone.bottom_up.num_heads=[1,2,4,8]",
    ],
    MVIT: [
        "model.backbone.bottom_up.embed_dim=8",
        "model.backbone.bottom_up.depth=5",
        "model.backbone.bottom_up.last_block_indexes=[0,1,3,4]",
    ],
    REGNET: [
        "model.backbone.bottom_up.depth=5",
        "model.backbone.bottom_up.w_0=16",
        "model.backbone.bottom_up.w_a=16",
        "model.backbone.bottom_up.w_m=1.6",
        "model.backbone.bottom_up.group_width=8",
    ],
}
COMMON = [
    "model.num_classes=3",
    "model.backbone.out_channels=16",
    "model.head.conv_dims=[16]",
    "model.head.norm=",
]
of_main = [pytest.param(name, marks=needs_main) for name in (VIT, SWIN, MVIT)]
every = pytest.mark.parametrize("name", [*of_main, REGNET])


def small(name, *overrides):
    cfg = model_zoo.get_config(f"COCO-Detection/{name}.py")
    return apply_overrides(cfg, [*COMMON, *SMALL[name], *overrides])


def parameters(cfg):
    """The model, and {name of a parameter: its group in the optimizer}."""
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    del cfg.optimizer.params["model"]
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    return model, optimizer, {n: groups[p] for n, p in model.named_parameters() if p in groups}


def network(model):
    """What a classifier's weights are for, and the beginning of its names."""
    is_vit = hasattr(model.backbone, "net")
    prefix = f"backbone.{'net' if is_vit else 'bottom_up'}."
    return prefix, model.get_submodule(prefix[:-1])


@every
def test_one_step_and_one_inference(name):
    cfg = small(name)
    check_config(cfg)
    model, optimizer, _ = parameters(cfg)
    assert [x.stride for x in model.backbone.output_shape().values()] == [8, 16, 32, 64, 128]
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    losses = model([make_input(90, 100, [[8, 8, 60, 50]], [1]), make_input(64, 80)])
    sum(losses.values()).backward()
    optimizer.step()
    assert all(x.isfinite() for x in losses.values())
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
    first = next(n for n in trained if n.startswith(network(model)[0]))
    changed = {n for n, p in trained.items() if not torch.equal(p, before[n])}
    assert {first, "head.cls_logits.weight", "backbone.top_block.p7.weight"} <= changed
    model.eval().test_score_thresh = 0.0
    with torch.no_grad():
        found = model([make_input(90, 100)])[0]["instances"]
    assert len(found) and found.pred_boxes.tensor.isfinite().all()


@needs_main
def test_the_learning_rates_of_a_vit():
    model, _, groups = parameters(small(VIT, "optimizer.lr=0.002"))
    assert len(model.backbone.net.blocks) == 4
    for name, group in groups.items():
        block = re.match(r"backbone\.net\.blocks\.(\d)\.", name)
        power = 4 - int(block[1]) if block else 5 * ("_embed" in name)
        assert group["lr"] == pytest.approx(0.002 * 0.7**power), name
    rates = {group["lr"] for group in groups.values()}
    assert len(rates) == 6 and max(rates) == 0.002


@pytest.mark.parametrize("name", of_main)
def test_what_has_no_weight_decay(name):
    cfg = small(name)
    model, _, groups = parameters(cfg)
    norms = (torch.nn.LayerNorm, torch.nn.GroupNorm)
    of_norms = {
        f"{n}.{p}"
        for n, module in model.named_modules()
        for p, _ in module.named_parameters(recurse=False)
        if isinstance(module, norms)
    }
    embeddings = re.compile(
        {
            VIT: r".*\.pos_embed",
            SWIN: r".*\.relative_position_bias_table",
            MVIT: r".*\.rel_pos_[hw]",
        }[name]
    )
    without = {n for n, group in groups.items() if group["weight_decay"] == 0}
    assert without == of_norms | {n for n in groups if embeddings.fullmatch(n)}
    assert without > of_norms
    others = {group["weight_decay"] for n, group in groups.items() if n not in without}
    assert others == {cfg.optimizer.weight_decay}


@needs_main
def test_mistakes_of_the_learning_rates():
    with pytest.raises(ValueError, match="rate is 0; expected above 0"):
        vit_lr_decay(rate=0, num_layers=12)
    cfg = small(VIT, "optimizer.params.lr_factor_func.num_layers=3")
    with pytest.raises(ValueError, match=r"num_layers is 3; expected more.*net\.blocks\.3\."):
        parameters(cfg)


def classifier(model):
    """Weights of the same network, as its classifier has them: without what only detectors have,
    with what they do not need."""
    _, net = network(model)
    new = re.compile(r".*\.rel_pos_[hw]|(norm\d|scale\d_norm)\..*")
    weights = {k: torch.rand_like(v) for k, v in net.state_dict().items() if v.is_floating_point()}
    weights = {k: v for k, v in weights.items() if not new.fullmatch(k)}
    more = {"cls_token": (1, 1, 7), "norm.weight": (7,), "head.weight": (10, 7)}
    return weights, {k: torch.rand(shape) for k, shape in more.items()}


def load(model, weights, tmp_path):
    is_regnet = hasattr(network(model)[1], "s1")
    content = {"model_state" if is_regnet else "model": weights}
    path = tmp_path / ("a.pyth" if is_regnet else "a.pth")
    torch.save(content, path)
    GFLCheckpointer(model).load(str(path) + "?matching_heuristics=True" * (not is_regnet))


@every
def test_weights_to_start_from(name, tmp_path):
    model = instantiate(small(name).model)
    weights, more = classifier(model)
    if name == SWIN:
        more["layers.0.blocks.1.attn_mask"] = torch.rand(4, 49, 49)
    load(model, {**weights, **more}, tmp_path)
    _, net = network(model)
    assert len(weights) > 20
    assert all(torch.equal(net.state_dict()[key], value) for key, value in weights.items())
    key = next(k for k in reversed(weights) if k.startswith(("blocks", "layers", "s4")))
    with pytest.raises(ValueError, match=rf"{key}: missing in the file"):
        load(model, {k: v for k, v in weights.items() if k != key}, tmp_path)
    deeper = re.sub(r"^(blocks|layers\.\d\.blocks|s\d)\.b?\d", r"\1.9", key)
    assert deeper != key
    with pytest.raises(ValueError, match=rf"{deeper}: not in the model"):
        load(model, {**weights, deeper: weights[key]}, tmp_path)


@every
def test_weights_carry_the_config(name, tmp_path):
    """A file that a training leaves needs no config beside it, and no trust."""
    cfg = small(name, "dataloader.test.mapper.augmentations.0.short_edge_length=90",
                "dataloader.test.mapper.augmentations.0.max_size=120")  # fmt: skip
    model = instantiate(cfg.model)
    path = tmp_path / "model.pth"
    torch.save({"model": model.state_dict(), "gfocal": describe(cfg, model=model).plain()}, path)
    predictor = Predictor(str(path))
    for key, value in predictor.model.state_dict().items():
        assert torch.equal(value.cpu(), model.state_dict()[key]), key
    assert predictor.input_format == ("BGR" if name == REGNET else "RGB")
    assert predictor.padded((90, 100)) == ((128, 128) if name == VIT else (96, 128))


def test_another_detectron2_is_named(monkeypatch):
    for name in ("ViT", "SwinTransformer", "MViT"):
        monkeypatch.delattr(f"detectron2.modeling.{name}", raising=False)
    message = (
        r"SwinTransformer came into Detectron2 after its release 0\.6.* \(0\.\d.* lacks them\. "
    )
    with pytest.raises(MissingPackageError, match=message + "Expected Detectron2's main branch"):
        from_detectron2_main("SwinTransformer", "FPN")
    for name in OF_MAIN:
        with pytest.raises(MissingPackageError, match="came into Detectron2 after"):
            model_zoo.get_config(f"COCO-Detection/{name}.py")
    with pytest.raises(SystemExit, match=r"^error: .*ViT came into Detectron2 after"):
        train.main(["--config-file", f"COCO-Detection/{VIT}.py", "--num-gpus", "0"])
