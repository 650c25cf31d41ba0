"""Configs by name."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from omegaconf import DictConfig

import gfocal
from gfocal import model_zoo

PUBLISHED = [
    "COCO-Detection/gfl_R_50_FPN_1x.py",
    "COCO-Detection/gfl_R_50_FPN_1x.yaml",
    "COCO-Detection/gflv2_R_50_FPN_1x.py",
    "COCO-Detection/gflv2_R_50_FPN_1x.yaml",
]


def test_list_configs():
    names = model_zoo.list_configs()
    assert set(PUBLISHED) <= set(names) and names == sorted(names)
    assert all(name.startswith("COCO-Detection/") for name in names)


@pytest.mark.parametrize("name", PUBLISHED)
def test_get_config(name):
    cfg = model_zoo.get_config(name)
    if name.endswith(".py"):
        assert isinstance(cfg, DictConfig) and cfg.model.num_classes == 80
    else:
        assert isinstance(cfg, CfgNode) and cfg.MODEL.GFL.NUM_CLASSES == 80
    assert Path(model_zoo.get_config_file(name)).is_file()


def test_a_file_or_a_name(tmp_path, monkeypatch):
    """What is here comes first; a name is found without the checkout, as the pages write it too."""
    monkeypatch.chdir(tmp_path)
    shapes = model_zoo.get_config_file("quick_start/shapes_gflv2.py")
    for name in ("quick_start/shapes_gflv2.py", "configs/quick_start/shapes_gflv2.py", shapes):
        assert model_zoo.find_config(name) == shapes
    (tmp_path / "quick_start").mkdir()
    (tmp_path / "quick_start/shapes_gflv2.py").touch()
    assert model_zoo.find_config("quick_start/shapes_gflv2.py") == "quick_start/shapes_gflv2.py"
    with pytest.raises(FileNotFoundError, match=r"'shapes.py' \(working dir.*did you mean quick_s"):
        model_zoo.find_config("shapes.py")


def test_quick_start_configs_are_found_too():
    cfg = model_zoo.get_config("quick_start/shapes_gflv2.py")
    assert cfg.model.num_classes == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("COCO-Detection/gfl_R_50_1x.py", r"did you mean .*COCO-Detection/gfl_R_50_FPN_1x\.py"),
        ("gflv2_R_50_FPN_1x.py", r"did you mean .*COCO-Detection/gflv2_R_50_FPN_1x\.py"),
        ("COCO-Detection/gflv2_R_50_FPN_1x", r"did you mean .*gflv2_R_50_FPN_1x\.(py|yaml)"),
        ("xyz", "no config 'xyz' in /.*; gfocal zoo --all"),
        ("", "no config ''"),
        ("../setup.py", "no config"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message):
        model_zoo.get_config_file(name)


def test_configs_inside_an_installed_package(tmp_path):
    """As a wheel lays them out: gfocal/configs beside __init__.py, and no checkout around."""
    package = Path(gfocal.__file__).parent
    checkout = Path(model_zoo.get_config_file(PUBLISHED[0])).parents[1]
    ignore = shutil.ignore_patterns("__pycache__", "configs")
    shutil.copytree(package, tmp_path / "gfocal", ignore=ignore)
    shutil.copytree(checkout, tmp_path / "gfocal" / "configs")
    code = (
        "from gfocal import model_zoo as zoo\n"
        "print(zoo.get_config_file(zoo.list_configs()[0]))\n"
        "print(zoo.get_config('COCO-Detection/gflv2_R_50_FPN_1x.py').model.num_classes)\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    path, num_classes = result.stdout.splitlines()
    assert path == str(tmp_path / "gfocal" / "configs" / model_zoo.list_configs()[0])
    assert num_classes == "80"
