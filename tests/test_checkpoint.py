"""Weights of mmdetection's names, both directions; backbones from a classifier's weights."""

import logging
import os
import pickle

import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate

from gfocal import model_zoo
from gfocal.checkpoint import (
    GFLCheckpointer,
    check_state_dict,
    convert_imagenet_state_dict,
    convert_mmdet_checkpoint,
    convert_mmdet_state_dict,
    expected_state_dict,
    find_configs,
    load_mmdet_checkpoint,
    load_weights_only,
    to_mmdet_state_dict,
)
from gfocal.engine.base import StrictCheckpointer
from tests.helpers import official

ZOO = [name for name in model_zoo.list_configs() if name.endswith(".py")]
R50 = "COCO-Detection/gfl_R_50_FPN_1x.py"
RESNET = {
    "backbone.conv1.weight": "backbone.bottom_up.stem.conv1.weight",
    "backbone.bn1.running_var": "backbone.bottom_up.stem.conv1.norm.running_var",
    "backbone.layer1.0.conv2.weight": "backbone.bottom_up.res2.0.conv2.weight",
    "backbone.layer4.2.bn3.bias": "backbone.bottom_up.res5.2.conv3.norm.bias",
    "backbone.layer2.0.downsample.0.weight": "backbone.bottom_up.res3.0.shortcut.weight",
    "backbone.layer2.0.downsample.1.weight": "backbone.bottom_up.res3.0.shortcut.norm.weight",
    "backbone.layer3.22.conv2.conv_offset.bias": "backbone.bottom_up.res4.22.conv2_offset.bias",
    "neck.lateral_convs.0.conv.weight": "backbone.fpn_lateral3.weight",
    "neck.fpn_convs.2.conv.bias": "backbone.fpn_output5.bias",
    "neck.fpn_convs.3.conv.bias": "backbone.top_block.p6.bias",
    "neck.fpn_convs.4.conv.weight": "backbone.top_block.p7.weight",
    "bbox_head.cls_convs.1.conv.weight": "head.cls_tower.1.weight",
    "bbox_head.reg_convs.3.gn.bias": "head.box_tower.3.norm.bias",
    "bbox_head.gfl_reg.bias": "head.box_logits.bias",
    "bbox_head.scales.4.scale": "head.scales.4",
}
RES2NET = {
    "backbone.stem.0.weight": "backbone.bottom_up.stem.conv1.weight",
    "backbone.stem.4.running_mean": "backbone.bottom_up.stem.conv2.norm.running_mean",
    "backbone.stem.6.weight": "backbone.bottom_up.stem.conv3.weight",
    "backbone.layer1.0.conv1.weight": "backbone.bottom_up.res2.0.conv1.weight",
    "backbone.layer1.0.bn3.weight": "backbone.bottom_up.res2.0.conv3.norm.weight",
    "backbone.layer1.0.convs.2.weight": "backbone.bottom_up.res2.0.conv2.2.weight",
    "backbone.layer1.0.bns.0.bias": "backbone.bottom_up.res2.0.conv2.0.norm.bias",
    "backbone.layer4.1.convs.1.conv_offset.bias": "backbone.bottom_up.res5.1.conv2_offset.1.bias",
    "backbone.layer2.0.downsample.1.weight": "backbone.bottom_up.res3.0.shortcut.weight",
    "backbone.layer2.0.downsample.2.bias": "backbone.bottom_up.res3.0.shortcut.norm.bias",
}


@pytest.mark.parametrize("names", [RESNET, RES2NET], ids=["resnet", "res2net"])
def test_names_by_hand(names):
    converted = convert_mmdet_state_dict({name: torch.zeros(1) for name in names})
    assert list(converted) == list(names.values())
    back = to_mmdet_state_dict({name: torch.zeros(1) for name in names.values()})
    assert list(back) == list(names)


def test_the_old_name_of_an_offset():
    """mmdetection's before DCN came from mmcv."""
    (ours,) = convert_mmdet_state_dict({"backbone.layer2.0.conv2_offset.weight": torch.zeros(1)})
    assert ours == "backbone.bottom_up.res3.0.conv2_offset.weight"


@pytest.mark.parametrize("kind", ["v1_r18", "v2_r18", "v1_r50", "v2_r50"])
def test_every_weight_finds_its_place(kind):
    fixture = official.load(f"detector_{kind}")
    state_dict = official.state_dict(fixture)
    converted = convert_mmdet_state_dict(state_dict)
    dropped = [k for k in state_dict if k.endswith(("num_batches_tracked", "integral.project"))]
    assert len(converted) == len(state_dict) - len(dropped)
    model = official.detector(fixture)
    own = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert own.keys() == converted.keys()
    assert all(torch.equal(own[k], converted[k]) for k in own)
    # and back: all but the counter, and the row that has no counterpart here
    back = to_mmdet_state_dict(converted)
    names = {k for k in state_dict if not k.endswith("num_batches_tracked")}
    assert back.keys() == names
    for name in names:
        assert back[name].shape == state_dict[name].shape
        rows = slice(0, -1) if "gfl_cls" in name and "v2" in kind else ...
        assert torch.equal(back[name][rows], state_dict[name][rows]), name
    if "v2" in kind:  # never above the score threshold of 0.05
        assert not back["bbox_head.gfl_cls.weight"][-1].any()
        assert back["bbox_head.gfl_cls.bias"][-1].sigmoid() == pytest.approx(0.01)


@pytest.mark.parametrize("name", ZOO)
def test_round_trip_of_the_zoo(name):
    cfg = model_zoo.get_config(name).model
    cfg.num_classes = 5
    generator = torch.Generator().manual_seed(0)
    ours = {
        key: torch.rand(value.shape, generator=generator)
        for key, value in expected_state_dict(cfg).items()
    }
    theirs = to_mmdet_state_dict(ours)
    assert not set(theirs) & set(ours)
    back = convert_mmdet_state_dict(theirs)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[key], ours[key]) for key in ours)


@pytest.mark.parametrize("name", ["gflv2_R_50_FPN_1x", "gfl_X_101_32x4d_FPN_ms_2x"])
def test_which_published_model_it_is(name):
    cfg = model_zoo.get_config(f"COCO-Detection/{name}.py").model
    cfg.num_classes = 5
    found, problems = find_configs(expected_state_dict(cfg))
    same = [name, "gflv2_R_50_FPN_ms_2x"] if "R_50" in name else [name]
    assert found == [f"COCO-Detection/{other}.py" for other in same] and problems == {}


def test_class_rows():
    v1 = {"bbox_head.gfl_cls.bias": torch.arange(6.0)}
    v2 = {**v1, "bbox_head.reg_conf.0.weight": torch.zeros(64, 20, 1, 1)}
    assert len(convert_mmdet_state_dict(v1)["head.cls_logits.bias"]) == 6
    converted = convert_mmdet_state_dict(v2)
    assert converted["head.cls_logits.bias"].tolist() == [0, 1, 2, 3, 4]
    assert converted["head.quality_predictor.fc1.weight"].shape == (64, 20)
    assert len(convert_mmdet_state_dict(v2, num_classes=6)["head.cls_logits.bias"]) == 6
    with pytest.raises(ValueError, match="6 class rows; expected num_classes 80"):
        convert_mmdet_state_dict(v1, num_classes=80)
    with pytest.raises(ValueError, match="6 class rows; expected num_classes 5$"):
        convert_mmdet_state_dict(v1, num_classes=5)  # v1 has no row to spare
    with pytest.raises(ValueError, match="6 class rows; expected num_classes 4 or one more"):
        convert_mmdet_state_dict(v2, num_classes=4)


def test_unmapped_keys_are_listed():
    state_dict = {
        "rpn_head.conv.weight": torch.zeros(1),
        "backbone.conv1.weight": torch.zeros(1),
        "backbone.layer5.0.conv1.weight": torch.zeros(1),
    }
    with pytest.raises(
        ValueError, match="2 keys .*: rpn_head.conv.weight, backbone.layer5.0.conv1"
    ):
        convert_mmdet_state_dict(state_dict)
    with pytest.raises(ValueError, match=r"1 keys are .*: roi_heads\.x$"):
        to_mmdet_state_dict({"roi_heads.x": torch.zeros(1)})


def test_two_spellings_of_one_key():
    names = ("backbone.layer2.0.conv2_offset.bias", "backbone.layer2.0.conv2.conv_offset.bias")
    with pytest.raises(ValueError, match=r"several keys .*\.res3\.0\.conv2_offset\.bias"):
        convert_mmdet_state_dict({name: torch.zeros(1) for name in names})


def test_check_state_dict():
    expected = {"a": torch.zeros(2), "b": torch.zeros(3), "x.num_batches_tracked": torch.zeros(())}
    got = {
        "a": torch.zeros(4),
        "c": torch.zeros(1),
        "anchor_generator.cell_anchors.0": torch.ones(1),
    }
    assert check_state_dict(expected, expected) == {}
    assert check_state_dict(got, expected) == {
        "a": "(4,) in the file, (2,) in the model",
        "b": "missing in the file",
        "c": "not in the model",
    }


def test_what_a_checkpoint_may_look_like(tmp_path):
    """Bare, under state_dict, and as DistributedDataParallel names it."""
    weights = {"backbone.conv1.weight": torch.rand(2)}
    for content in (
        weights,
        {"state_dict": weights, "meta": {"mmdet_version": "3.3.0", "CLASSES": ("a", "b")}},
        {"state_dict": {f"module.{k}": v for k, v in weights.items()}, "meta": None},
    ):
        torch.save(content, tmp_path / "a.pth")
        loaded = load_mmdet_checkpoint(tmp_path / "a.pth")
        assert list(loaded) == list(weights)
        assert torch.equal(loaded["backbone.conv1.weight"], weights["backbone.conv1.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds a Tensor; expected a dict"),
        ({}, "has no state_dict"),
        ({"state_dict": [1]}, r"has no state_dict to read: \[1\]; expected a dict of tensors$"),
        ({"state_dict": {"a": 1}}, "a state_dict of named tensors: it has others, under 'a'$"),
        ({"state_dict": {1: torch.zeros(1)}}, "it has others, under 1$"),
        ({"epoch": 3, "optimizer": {}}, "it has others, under 'epoch', 'optimizer'$"),
        (
            {"state_dict": {"a": torch.zeros(1)}, "meta": {"mmdet_version": "1.2.0+9d3f"}},
            r"mmdetection 1\.x \(its meta says mmdet_version 1\.2\.0\+9d3f\).*anchors are centred",
        ),
        (
            {"bbox_head.distribution_project.project": torch.zeros(17)},
            r"mmdetection 1\.x \(it has bbox_head\.distribution_project.*2\.x or 3\.x",
        ),
    ],
)
def test_what_a_checkpoint_may_not_be(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        load_mmdet_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 half of an archive"])
def test_damaged_files(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth is not a PyTorch checkpoint, is damaged, .*\(\w"):
        load_mmdet_checkpoint(tmp_path / "a.pth")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*b\.pth"):
        load_mmdet_checkpoint(tmp_path / "b.pth")


class RunsCode:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("load", [load_weights_only, GFLCheckpointer, StrictCheckpointer])
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_file_is_not_run(load, protocol, tmp_path, monkeypatch):
    """Also where PyTorch, until 2.5, would by default; and nothing invites to run it."""
    default = torch.load

    def load_as_ever(*args, weights_only=False, **kwargs):
        return default(*args, weights_only=weights_only, **kwargs)

    monkeypatch.setattr(torch, "load", load_as_ever)
    content = {"model": {"weight": torch.zeros(1)}, "meta": RunsCode(tmp_path / "ran")}
    torch.save(content, tmp_path / "a.pth", pickle_protocol=protocol)
    read = load if load is load_weights_only else load(torch.nn.Linear(1, 1)).load
    names = rf"running code that it names \({os.mkdir.__module__}\.mkdir\).*trust the file"
    message = {2: names, 4: r"more than weights \(UnpicklingError: Unsupported operand 149\)$"}
    with pytest.raises(ValueError, match=message[protocol]):
        read(str(tmp_path / "a.pth"))
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "a.pth")
    assert (tmp_path / "ran").exists()  # the file is what it is meant to be


def test_the_refusal_as_pytorch_until_2_3_words_it(tmp_path, monkeypatch):
    def load(*args, **kwargs):
        raise pickle.UnpicklingError(
            "Weights only load failed. Re-running `torch.load` with `weights_only` set to `False` "
            "will likely succeed, [...] WeightsUnpickler error: Unsupported class posix.system"
        )

    monkeypatch.setattr(torch, "load", load)
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"running code that it names \(posix\.system\)"):
        load_weights_only(tmp_path / "a.pth")


def test_weights_of_no_use_are_named():
    """Not a crash, and not reshaped into what fits."""
    name = "bbox_head.reg_conf.0.weight"
    (kept,) = convert_mmdet_state_dict({name: torch.zeros(64, 5, 2, 2)}).values()
    assert kept.shape == (64, 5, 2, 2)
    (kept,) = convert_mmdet_state_dict({name: torch.zeros(64)}).values()
    assert kept.shape == (64,)
    with pytest.raises(ValueError, match=r"head\.cls_logits\.bias is a single number"):
        convert_mmdet_state_dict({"bbox_head.gfl_cls.bias": torch.tensor(1.0)})
    (back,) = to_mmdet_state_dict(
        {"head.quality_predictor.fc1.weight": torch.zeros(64, 20)}
    ).values()
    assert back.shape == (64, 20, 1, 1)


def test_a_converted_checkpoint_is_the_official_detector(tmp_path, caplog):
    """From file to detections through Detectron2's own checkpointer, which has nothing to say."""
    fixture = official.load("detector_v2_r18")
    torch.save({"state_dict": official.state_dict(fixture)}, tmp_path / "theirs.pth")
    cfg = model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.py").model
    cfg.backbone.bottom_up.stages.depth = 18
    cfg.num_classes = int(fixture["num_classes"])
    cfg.test_topk_candidates = int(fixture["max_candidates_per_level"])
    state_dict, configs = convert_mmdet_checkpoint(tmp_path / "theirs.pth", model_cfg=cfg)
    assert configs == []
    torch.save({"model": state_dict}, tmp_path / "ours.pth")

    model = instantiate(cfg).double().eval()
    with caplog.at_level(logging.WARNING):
        DetectionCheckpointer(model).load(str(tmp_path / "ours.pth"))
    assert caplog.records == []
    for i, image in enumerate(official.detector_inputs()):
        with torch.no_grad():
            instances = model([image])[0]["instances"]
        scores = torch.from_numpy(fixture[f"det_scores_{i}"])
        boxes = torch.from_numpy(fixture[f"det_boxes_{i}"])
        torch.testing.assert_close(instances.scores, scores, rtol=0, atol=1e-6, check_dtype=False)
        torch.testing.assert_close(
            instances.pred_boxes.tensor, boxes, rtol=0, atol=1e-4, check_dtype=False
        )


def test_the_anchors_are_no_weights():
    model = official.detector(official.load("detector_v1_r18"))
    assert not [key for key in model.state_dict() if "anchor" in key]
    assert len(list(model.anchor_generator.buffers())) == 5


def _resnet(name):
    """torchvision's network and the config of a detector on it."""
    arguments = {
        "resnet18": {"depth": 18},
        "resnet50": {},
        "resnet101": {"depth": 101},
        "resnext50_32x4d": {"num_groups": 32, "width_per_group": 4},
    }
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(weights=None)
    for module in network.modules():  # statistics that are not those of no normalisation
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.0)
    cfg = model_zoo.get_config(R50).model
    cfg.backbone.bottom_up.stages.update(arguments[name])
    cfg.backbone.bottom_up.out_features = ["res2", "res3", "res4", "res5"]
    return network, cfg


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101", "resnext50_32x4d"])
def test_a_backbone_from_torchvision(name, tmp_path, caplog):
    network, cfg = _resnet(name)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    model = instantiate(cfg)
    untrained = model.head.cls_logits.weight.clone()
    with caplog.at_level(logging.WARNING):
        GFLCheckpointer(model).load(str(tmp_path / "a.pth"))
    assert caplog.records == []
    assert torch.equal(model.head.cls_logits.weight, untrained)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        ours = model.double().backbone.bottom_up(x.double())
        network = network.double().eval()
        out = network.maxpool(network.relu(network.bn1(network.conv1(x.double()))))
        for i in range(1, 5):
            out = getattr(network, f"layer{i}")(out)
            torch.testing.assert_close(ours[f"res{i + 1}"], out, rtol=1e-9, atol=1e-9)


def test_a_backbone_with_deformable_stages_from_torchvision(tmp_path):
    network, cfg = _resnet("resnet50")
    cfg.backbone.bottom_up.stages.deform_on_per_stage = [False, True, True, True]
    torch.save({"state_dict": network.state_dict(), "meta": {}}, tmp_path / "a.pth")
    model = instantiate(cfg)
    GFLCheckpointer(model).load(str(tmp_path / "a.pth"))
    block = model.backbone.bottom_up.res4[1]
    assert torch.equal(block.conv2.weight, network.layer3[1].conv2.weight)
    assert not block.conv2_offset.weight.any()


def test_a_res2net_from_its_classifier():
    """The names that the ImageNet model of mmdetection has: the detector's without "backbone."."""
    cfg = model_zoo.get_config("COCO-Detection/gflv2_R2_101_dcn_FPN_ms_2x.py").model
    expected = {
        key: value
        for key, value in expected_state_dict(cfg).items()
        if key.startswith("backbone.bottom_up.") and "conv2_offset" not in key
    }
    classifier = {
        key.removeprefix("backbone."): value for key, value in to_mmdet_state_dict(expected).items()
    }
    assert {"stem.0.weight", "layer1.0.convs.0.weight", "layer1.0.downsample.1.weight"} < set(
        classifier
    )
    classifier.update({"fc.weight": torch.zeros(1), "bn1.num_batches_tracked": torch.zeros(1)})
    converted = convert_imagenet_state_dict(classifier)
    assert converted.keys() == expected.keys()
    assert check_state_dict(converted, expected) == {}


def test_a_pickle_of_detectron2(tmp_path, caplog):
    """As ImageNetPretrained/torchvision/R-50.pkl is: numpy arrays, the backbone's names."""
    network, cfg = _resnet("resnet18")
    renamed = convert_imagenet_state_dict(network.state_dict())
    content = {
        "model": {k.removeprefix("backbone.bottom_up."): v.numpy() for k, v in renamed.items()},
        "__author__": "torchvision",
        "matching_heuristics": True,
    }
    (tmp_path / "R-18.pkl").write_bytes(pickle.dumps(content))
    model = instantiate(cfg)
    GFLCheckpointer(model).load(str(tmp_path / "R-18.pkl"))
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in renamed.items())
    del content["model"]["res4.1.conv2.weight"]
    (tmp_path / "R-18.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"res4\.1\.conv2\.weight: missing in the file$"):
        GFLCheckpointer(model).load(str(tmp_path / "R-18.pkl"))


def test_weights_of_another_backbone_are_refused(tmp_path):
    """R-18's would fit R-34 in part, and pass with a warning in Detectron2's checkpointer."""
    network, cfg = _resnet("resnet18")
    torch.save(network.state_dict(), tmp_path / "a.pth")
    cfg.backbone.bottom_up.stages.depth = 34
    with pytest.raises(ValueError, match=r"not this model's:\n  .*res2\.2\.conv1.*missing"):
        GFLCheckpointer(instantiate(cfg)).load(str(tmp_path / "a.pth"))
    state_dict = network.state_dict()
    state_dict["layer1.0.conv1.weight"] = torch.zeros(64, 32, 3, 3)
    state_dict["layer1.0.extra.weight"] = torch.zeros(1)
    torch.save(state_dict, tmp_path / "a.pth")
    cfg.backbone.bottom_up.stages.depth = 18
    model = instantiate(cfg)
    with pytest.raises(ValueError, match=r"1 keys .*: backbone\.layer1\.0\.extra\.weight"):
        GFLCheckpointer(model).load(str(tmp_path / "a.pth"))
    del state_dict["layer1.0.extra.weight"]
    torch.save(state_dict, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"\(64, 32, 3, 3\) in the file, \(64, 64, 3, 3\) in the"):
        GFLCheckpointer(model).load(str(tmp_path / "a.pth"))


NOTHING_FITS = {  # what a .pth holds, and what is said of it
    "vgg": (
        lambda: torchvision.models.vgg11(weights=None).state_dict(),
        r"are features\.0\.weight, .* \(22 in all\); expected \S+ \(256, 512, 1, 1\), .* in all\)$",
    ),
    "wrapped": (
        lambda: {"state_dict": {"a.b": torch.zeros(1)}, "epoch": 3},
        r"none of the weights fits the model\. They are a\.b; expected backbone\.",
    ),
    "no names": (lambda: {"model": {"a.b": torch.zeros(1)}}, r"They are a\.b; expected backbone\."),
    "no shapes": (
        lambda: {"model": {"head.cls_logits.bias": torch.zeros(1)}},
        r"They are head\.cls_logits\.bias \(1,\); expected backbone\.",
    ),
    "nothing": (dict, r"has no model to read: \{\}; expected a dict of tensors$"),
    "no weights": (lambda: {"model": {}}, r"has no model to read: \{\}; expected a dict of t"),
    "text": (lambda: {"model": "x"}, r"has no model to read: 'x'; expected a dict of tensors$"),
    "numbers": (lambda: {"model": {"a": 1, 2: torch.zeros(1)}}, r"it has others, under 'a', 2$"),
}


@pytest.mark.parametrize("case", NOTHING_FITS.values(), ids=NOTHING_FITS.keys())
def test_initial_weights_of_which_nothing_fits_are_refused(case, tmp_path):
    """Detectron2's checkpointer warns, and trains from scratch."""
    make_content, message = case
    torch.save(make_content(), tmp_path / "a.pth")
    model = instantiate(model_zoo.get_config(R50).model)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/a\.pth:? .*{message}"):
        GFLCheckpointer(model).load(str(tmp_path / "a.pth"))


def test_what_fits_is_loaded(tmp_path):
    """For fine-tuning: one weight with another's name and shape is enough."""
    model = instantiate(model_zoo.get_config(R50).model)
    weights = {"head.box_logits.bias": torch.ones(68), "head.cls_logits.bias": torch.ones(3)}
    torch.save({"model": weights}, tmp_path / "a.pth")
    GFLCheckpointer(model).load(str(tmp_path / "a.pth"))
    assert model.head.box_logits.bias.eq(1).all() and not model.head.cls_logits.bias.eq(1).any()


@pytest.mark.parametrize(
    "content", [1, [1], "model", ["model", "__author__"], {1: 2}, {"model": "x"}, {"a": 1}, b"cut"]
)
@pytest.mark.parametrize("checkpointer", [GFLCheckpointer, StrictCheckpointer])
def test_a_pickle_of_something_else(checkpointer, content, tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": [1]})[:9] if content == b"cut" else pickle.dumps(content))
    with pytest.raises(
        ValueError, match=rf"{path} is not a (dict of weights, or is|checkpoint wi)"
    ):
        checkpointer(torch.nn.Linear(1, 1)).load(str(path))


def test_the_refusal_of_other_classes_says_so(tmp_path):
    """And nothing that is there in another shape is called missing."""
    cfg = model_zoo.get_config(R50).model
    cfg.head.conv_dims = [64]
    models = []
    for cfg.num_classes in (5, 2):
        models.append(instantiate(cfg))
    weights = models[0].state_dict()
    path = str(tmp_path / "5.pth")
    torch.save({"model": weights}, path)
    with pytest.raises(ValueError) as caught:
        StrictCheckpointer(models[1]).load(path)
    assert str(caught.value) == (
        f"{path}: the weights are not this model's (the file has 5 classes, num_classes is 2):\n"
        "  head.cls_logits.weight: (5, 64, 3, 3) in the file, (2, 64, 3, 3) in the model\n"
        "  head.cls_logits.bias: (5,) in the file, (2,) in the model"
    )
    del weights["head.scales.0"]
    torch.save({"model": weights}, path)
    with pytest.raises(ValueError) as caught:
        StrictCheckpointer(models[1]).load(path)
    lines = str(caught.value).splitlines()
    assert lines[:2] == [
        f"{path}: the weights are not this model's:",
        "  head.scales.0: missing in the file",
    ]
    assert len(lines) == 4


def test_statistics_are_not_made_up(tmp_path):
    """Detectron2's frozen batch norm takes a file without them for an old one."""
    network, cfg = _resnet("resnet18")
    state_dict = network.state_dict()
    del state_dict["layer1.0.bn1.running_var"]
    torch.save(state_dict, tmp_path / "a.pth")
    model = instantiate(cfg)
    message = r"model's:\n  backbone\.bottom_up\.res2\.0\.conv1\.norm\.running_var: missing.*$"
    with pytest.raises(ValueError, match=message):
        GFLCheckpointer(model).load(str(tmp_path / "a.pth"))
    ours = model.state_dict()
    del ours["backbone.bottom_up.res2.0.conv1.norm.running_var"]
    torch.save({"model": dict(ours)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        StrictCheckpointer(model).load(str(tmp_path / "a.pth"))


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_a_deeper_backbone_is_refused_and_a_shorter_model_is_not(suffix, tmp_path):
    """R-34's weights have all that R-18 asks for (as R-101's have for R-50), and more."""
    state_dict = torchvision.models.resnet34(weights=None).state_dict()
    path = str(tmp_path / f"R-34{suffix}")
    if suffix == ".pth":
        torch.save(state_dict, path)
    else:
        weights = {
            key.removeprefix("backbone.bottom_up."): value.numpy()
            for key, value in convert_imagenet_state_dict(state_dict).items()
        }
        weights["stem.fc.weight"] = state_dict["fc.weight"].numpy()  # as Detectron2's R-50.pkl
        content = {"model": weights, "__author__": "torchvision", "matching_heuristics": True}
        (tmp_path / "R-34.pkl").write_bytes(pickle.dumps(content))
    cfg = model_zoo.get_config(R50).model
    stages = cfg.backbone.bottom_up.stages
    stages.depth = 18
    with pytest.raises(ValueError, match=r"res2\.2\.conv1\.weight: not in the model"):
        GFLCheckpointer(instantiate(cfg)).load(path)
    stages.depth = 34
    model = instantiate(cfg)
    GFLCheckpointer(model).load(path)
    del model.backbone.bottom_up.res5  # as of a detector on C3 and C4
    GFLCheckpointer(model).load(path)


def test_a_file_that_is_not_for_evaluation_or_not_converted(tmp_path):
    network, cfg = _resnet("resnet18")
    model = instantiate(cfg)
    torch.save(network.state_dict(), tmp_path / "classifier.pth")
    with pytest.raises(ValueError, match=r"backbone\.fpn_lateral3\.weight: missing in the f"):
        StrictCheckpointer(model).load(str(tmp_path / "classifier.pth"))
    theirs = to_mmdet_state_dict(model.state_dict())
    for content in (theirs, {"state_dict": theirs, "meta": {}}):
        torch.save(content, tmp_path / "mmdet.pth")
        for checkpointer in (GFLCheckpointer, StrictCheckpointer):
            with pytest.raises(ValueError, match=r"detector of mmdetection; see tools/convert_mmd"):
                checkpointer(model).load(str(tmp_path / "mmdet.pth"))


def test_own_checkpoints_load_as_ever(tmp_path, caplog):
    _, cfg = _resnet("resnet18")
    first, second = instantiate(cfg), instantiate(cfg)
    DetectionCheckpointer(first, str(tmp_path)).save("a", iteration=7)
    with caplog.at_level(logging.WARNING):
        rest = GFLCheckpointer(second).load(str(tmp_path / "a.pth"))
    assert rest["iteration"] == 7 and caplog.records == []
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
