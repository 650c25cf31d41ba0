"""Loading: backbones from a classifier's weights, and the refusal of what does not fit."""

import logging
import pickle

import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import instantiate

from gfocal import model_zoo
from gfocal.backbones import TimmBackbone
from gfocal.weights import (
    GFLCheckpointer,
    StrictCheckpointer,
    convert_imagenet_state_dict,
    to_mmdet_state_dict,
)

R50 = "COCO-Detection/gfl_R_50_FPN_1x.py"


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
        r"are features\.0\.weight, .* \(22 in all\); expected \S+ \(256, 512, 1, 1\), .* in all\)",
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


def test_files_of_timm(tmp_path):
    """A plain ResNet has torchvision's names. Others belong into a TimmBackbone, which reads the
    same file."""
    timm = pytest.importorskip("timm")
    path = tmp_path / "a.pth"
    network, cfg = timm.create_model("resnet18"), model_zoo.get_config(R50).model
    cfg.backbone.bottom_up.stages.depth = 18
    torch.save(network.state_dict(), path)
    model = instantiate(cfg)
    GFLCheckpointer(model).load(str(path))
    loaded = model.backbone.bottom_up.res5[1].conv2.weight
    assert torch.equal(loaded, network.layer4[1].conv2.weight)

    network = timm.create_model("resnet18d")
    torch.save(network.state_dict(), path)
    for bottom_up in (cfg.backbone.bottom_up, L(TimmBackbone)(name="resnet18d")):
        cfg.backbone.bottom_up = bottom_up
        cfg.backbone.bottom_up.out_features = ["res3", "res4", "res5"]
        with pytest.raises(ValueError, match="They are conv1.0.weight, ") as error:
            GFLCheckpointer(instantiate(cfg)).load(str(path))
        assert "timm's are read by TimmBackbone(name=..., weights=FILE)" in str(error.value)
    cfg.backbone.bottom_up.weights = str(path)
    loaded = instantiate(cfg).backbone.bottom_up.net.layer4[1].conv2.weight
    assert torch.equal(loaded, network.layer4[1].conv2.weight)


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


def test_current_detectron2_reads_through_a_method_of_its_own(tmp_path, monkeypatch):
    """And then looks at the options of the URL, which 0.5 does not know."""

    def torch_load(self, f):
        raise AssertionError("would run code")

    def load_file(self, filename):
        return {**self._torch_load(filename), "an option": True}

    monkeypatch.setattr(DetectionCheckpointer, "_torch_load", torch_load, raising=False)
    monkeypatch.setattr(DetectionCheckpointer, "_load_file", load_file)
    model = torch.nn.Linear(1, 1)
    torch.save({"weight": torch.ones(1, 1), "bias": torch.ones(1)}, tmp_path / "a.pth")
    assert StrictCheckpointer(model).load(str(tmp_path / "a.pth")) == {"an option": True}
    assert model.weight.item() == model.bias.item() == 1
