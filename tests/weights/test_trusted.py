import os
import subprocess

import pytest
import torch
from detectron2.modeling.backbone.resnet import ResNet

from gfocal.modeling.quality import centerness
from gfocal.weights.trusted import dotted_name, trusted_callable
from tests.helpers.toy import ToyDetector


@pytest.mark.parametrize("value", [centerness, ResNet, ResNet.make_stage, torch.nn.Conv2d])
def test_a_callable_is_found_by_its_name(value):
    assert trusted_callable(dotted_name(value), "w.pth") == value


def test_a_callable_without_a_name():
    def inner():
        pass

    for value in (lambda: 0, inner, [].append):
        with pytest.raises(ValueError, match="cannot be found by a dotted name"):
            dotted_name(value)


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "torch.load",  # it runs a pickle's code, as the next three
        "torch.hub.load",
        "torch.jit.load",
        "detectron2.data.build.load_proposals_into_dataset",
        "torch.utils.cpp_extension.load",  # compiles and runs
        "torch.save",  # replaces a file
        "detectron2.config.lazy.LazyConfig.load",  # runs a Python file
        "detectron2.utils.registry.locate",
        "gfocal.cli.train.main",
        "gfocal.config.files.load_config",
        "gfocal.weights.writing.write_checkpoint",
        "torchvision.datasets.utils.download_and_extract_archive",
        # Modules have what they import, and functions their globals.
        "gfocal.data.coco.os.system",
        "gfocal.modeling.numerics.torch.load",
        "detectron2.modeling.backbone.resnet.torch.hub.load",
        "detectron2.evaluation.coco_evaluation.pickle.load",
        "detectron2.evaluation.lvis_evaluation.PathManager.rm",
        "gfocal.modeling.head.GFLHead.__init__.__globals__.get",
        "torch.nn.Module.__class__",
        "gfocal.modeling.quality.__builtins__",
        # It unpickles the url of the object that it is called with, as the next two.
        "torchvision.models._api.WeightsEnum.get_state_dict",
        "torchvision.models.ResNet50_Weights.get_state_dict",
        "torchvision.models.vgg._vgg",
        "torchvision.models._api.Weights",
        "torch.nn.Module.load_state_dict",  # a method, without its object
        "torch.nn.Module.apply",
        "detectron2.modeling.mmdet_wrapper.MMDetBackbone",
        # What begins like a trusted name, and what is no code.
        "gfocal.modelings.x",
        "gfocal_data.x",
        "gfocal.modeling.boxes",
        "gfocal.modeling.recipes.QUALITY",
        "gfocal.modeling.boxes.not_there",
        "gfocal.modeling.",
        "gfocal.modeling..boxes",
        "",
        None,
        7,
        ["gfocal.modeling.boxes.aligned_iou"],
    ],
)
def test_other_names_are_refused(name, monkeypatch):
    for module, function in ((os, "system"), (subprocess, "run"), (torch, "load")):
        monkeypatch.setattr(module, function, None)
    with pytest.raises(ValueError, match=r"w\.pth names") as error:
        trusted_callable(name, "w.pth")
    assert "trusted_packages" in str(error.value) or "not there" in str(error.value)


def test_packages_that_the_caller_trusts():
    name = "tests.helpers.toy.ToyDetector"
    with pytest.raises(ValueError, match=r"trusted_packages=\('tests',\), or --trust tests"):
        trusted_callable(name, "w.pth")
    for package in ("tests", "tests.helpers.toy"):
        assert trusted_callable(name, "w.pth", [package]) is ToyDetector
    with pytest.raises(ValueError, match="trusted_packages"):  # imported there, not defined there
        trusted_callable("tests.helpers.toy.os.system", "w.pth", ["tests"])
    with pytest.raises(ValueError, match="trusted_packages"):
        trusted_callable(name, "w.pth", ["tests.helper"])
