"""timm's ViT below Detectron2's SimpleFeaturePyramid, by the example of docs/extend.md."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from gfocal._padding import Padding
from gfocal.config import apply_overrides
from tests.helpers.detectron2_main import needs_main
from tests.helpers.tiny import make_input

pytestmark = [pytest.mark.usefixtures("one_thread"), needs_main]


def config():
    text = (Path(__file__).parents[2] / "docs/extend.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (code,) = (block for block in blocks if "vit_tiny_patch16_224" in block)
    names = {}
    exec(code.replace("pretrained=True", "pretrained=False"), names)  # noqa: S102
    small = ["model.num_classes=3", "model.backbone.out_channels=16", "model.head.conv_dims=[16]"]
    return apply_overrides(names["cfg"], [*small, "model.head.norm="])


@pytest.mark.parametrize("square", [0, 96])
def test_one_step_and_one_inference(square):
    cfg = config()
    if square:
        cfg.model.backbone.square_pad = square
        cfg.model.backbone.net.options = {"img_size": square}
    model = instantiate(cfg.model)
    assert Padding.of(model.backbone) == Padding(32, square)
    assert [x.stride for x in model.backbone.output_shape().values()] == [8, 16, 32, 64, 128]
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    losses = model([make_input(90, 70, [[8, 8, 60, 50]], [1]), make_input(64, 80)])
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    optimizer.step()
    vit = "backbone.net.net.model."
    assert not torch.equal(model.get_parameter(f"{vit}pos_embed"), before[f"{vit}pos_embed"])
    model.eval().test_score_thresh = 0.0
    with torch.no_grad():
        found = model([make_input(90, 70)])[0]["instances"]
    assert len(found) and found.pred_boxes.tensor.isfinite().all()


def test_the_learning_rates():
    cfg = config()
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    vit = "backbone.net.net.model."
    expected = {  # power of 0.7, and weight decay
        f"{vit}pos_embed": (13, 0.0),
        f"{vit}patch_embed.proj.weight": (13, 0.1),
        f"{vit}blocks.0.attn.qkv.weight": (12, 0.1),
        f"{vit}blocks.11.attn.qkv.weight": (1, 0.1),
        f"{vit}blocks.11.norm1.weight": (1, 0.0),
        "backbone.top_block.p6.weight": (0, 0.1),
        "head.cls_logits.weight": (0, 0.1),
    }
    for name, (power, weight_decay) in expected.items():
        group = groups[model.get_parameter(name)]
        assert group["lr"] == pytest.approx(1e-4 * 0.7**power), name
        assert group["weight_decay"] == weight_decay, name
