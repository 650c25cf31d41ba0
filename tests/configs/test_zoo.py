"""GFL's twelve published models: their configs, a training step and an inference of each."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from gfocal import model_zoo
from gfocal.modeling.quality import DistributionGuidedQualityPredictor, NoQuality
from tests.helpers.tiny import make_input

PLAIN, C3_C5, C4_C5 = [0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 1, 1]
# name: depth, groups (or scales), width of a group (or part) in res2, deformable stages
PUBLISHED = {
    "gfl_R_50_FPN_1x": (50, 1, 64, PLAIN),
    "gfl_R_50_FPN_ms_2x": (50, 1, 64, PLAIN),
    "gfl_R_101_FPN_ms_2x": (101, 1, 64, PLAIN),
    "gfl_R_101_dcn_FPN_ms_2x": (101, 1, 64, C3_C5),
    "gfl_X_101_32x4d_FPN_ms_2x": (101, 32, 4, PLAIN),
    "gfl_X_101_32x4d_dcn_FPN_ms_2x": (101, 32, 4, C4_C5),
    "gflv2_R_50_FPN_1x": (50, 1, 64, PLAIN),
    "gflv2_R_50_FPN_ms_2x": (50, 1, 64, PLAIN),
    "gflv2_R_101_FPN_ms_2x": (101, 1, 64, PLAIN),
    "gflv2_R_101_dcn_FPN_ms_2x": (101, 1, 64, C3_C5),
    "gflv2_X_101_32x4d_dcn_FPN_ms_2x": (101, 32, 4, C4_C5),
    "gflv2_R2_101_dcn_FPN_ms_2x": (101, 4, 26, C4_C5),
}
MULTI_SCALE = [name for name in PUBLISHED if "ms_2x" in name]


def config(name):
    return model_zoo.get_config(f"COCO-Detection/{name}.py")


def test_the_list_is_the_published_models():
    names = [name for name in model_zoo.list_configs() if "/gfl" in name]
    assert sorted(n for n in names if n.endswith(".py")) == sorted(
        f"COCO-Detection/{name}.py" for name in PUBLISHED
    )
    assert [n for n in names if n.endswith(".yaml")] == sorted(
        f"COCO-Detection/{name}.yaml" for name in PUBLISHED if "_R_50_" in name
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_network(name):
    """The layers themselves: how many blocks, how wide, which are deformable."""
    depth, groups, width, deformable = PUBLISHED[name]
    cfg = config(name)
    with torch.device("meta"):
        model = instantiate(cfg.model)
    body = model.backbone.bottom_up
    assert [len(stage) for stage in body.stages] == [3, 4, 23 if depth == 101 else 6, 3]
    for i, stage in enumerate(body.stages):
        for block in stage:
            if "R2_" in name:
                convs, offsets = list(block.conv2), list(getattr(block, "conv2_offset", []))
                assert [c.groups for c in convs] == [1] * (groups - 1)
                assert {c.out_channels for c in convs} == {width * 2**i}
                assert block.conv1.out_channels == groups * width * 2**i
            else:
                convs = [block.conv2]
                offsets = [block.conv2_offset] if hasattr(block, "conv2_offset") else []
                assert block.conv2.groups == groups
                assert block.conv2.out_channels == groups * width * 2**i
            # 18 channels: a pair for each of 3x3 samples, without the weights of DCNv2
            assert [c.out_channels for c in offsets] == [18] * len(convs) * deformable[i]
    head_type = DistributionGuidedQualityPredictor if "gflv2" in name else NoQuality
    assert isinstance(model.head.quality_predictor, head_type)
    assert model.num_classes == 80
    # the stem and res2 are frozen, and every norm layer of the backbone
    frozen = {n.split(".")[0] for n, p in body.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "res2"}
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_training_step_and_an_inference(name):
    torch.manual_seed(0)
    cfg = config(name)
    cfg.model.num_classes = 3
    model = instantiate(cfg.model)
    losses = model([make_input(64, 96, [[8, 8, 60, 50]], [1]), make_input(64, 80)])
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_dfl"}
    sum(losses.values()).backward()
    for key, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad.isfinite().all(), key
    # deformable offsets start at zero and learn
    for key, parameter in model.named_parameters():
        if "conv2_offset" in key:
            assert not parameter.any() and parameter.grad.any(), key
    model.eval()
    model.test_score_thresh = 0.0  # so that an untrained model says something
    with torch.no_grad():
        instances = model([make_input(64, 96)])[0]["instances"]
    assert len(instances) > 0 and instances.pred_boxes.tensor.isfinite().all()
    assert instances.scores.isfinite().all() and instances.pred_classes.max() < 3


@pytest.mark.parametrize("name", MULTI_SCALE)
def test_multi_scale_training(name):
    """180k iterations, a tenth of the rate from 120k and again from 165k; 480..960 x 1333 px."""
    cfg = config(name)
    assert cfg.train.max_iter == 180000
    assert cfg.dataloader.train.total_batch_size == 16 and cfg.optimizer.lr == 0.01
    multiplier = instantiate(cfg.lr_multiplier)
    iterations = [0, 500, 119999, 120000, 164999, 165000, 179999]
    assert [multiplier(i / 180000) for i in iterations] == pytest.approx(
        [0.001, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    )
    resize, flip = cfg.dataloader.train.mapper.augmentations
    assert flip.horizontal
    resize = instantiate(resize)
    np.random.seed(0)
    images = np.zeros((480, 640, 3)), np.zeros((480, 1280, 3))
    shapes = [(t.new_h, t.new_w) for t in map(resize.get_transform, [images[0]] * 4000)]
    sides = {min(shape) for shape in shapes}
    assert min(sides) == 480 and max(sides) == 960 and len(sides) > 450
    assert max(resize.get_transform(images[1]).new_w for _ in range(200)) == 1333
    test = instantiate(cfg.dataloader.test.mapper.augmentations[0])
    assert test.get_transform(images[0]).new_h == 800


def test_what_training_starts_from():
    """Weights of the same network, for the same pixels: RGB, torchvision's mean and deviation."""
    expected = {
        "R_50": "R-50.pkl",
        "R_101": "resnet101-",
        "X_101": "resnext101_32x4d-",
        "R2_101": "res2net101_v1d_26w_4s_",
    }
    for name in PUBLISHED:
        cfg = config(name)
        key = next(key for key in expected if f"_{key}_" in name)
        assert expected[key] in cfg.train.init_checkpoint
        assert "://" in cfg.train.init_checkpoint
        assert cfg.model.input_format == "RGB"
        assert list(cfg.model.pixel_mean) == [123.675, 116.28, 103.53]
        assert list(cfg.model.pixel_std) == [58.395, 57.12, 57.375]
