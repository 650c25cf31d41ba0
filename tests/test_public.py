"""import gfocal: what it offers, and that it stays light."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import gfocal
import gfocal.data
import gfocal.engine
import gfocal.export

LAZY = (gfocal, gfocal.data, gfocal.engine, gfocal.export)


def test_every_public_name_is_there():
    assert {"GFL", "Predictor", "model_zoo", "quality_focal_loss"} <= set(gfocal.__all__)
    assert len(set(gfocal.__all__)) == len(gfocal.__all__) > 50
    assert {*gfocal.__all__, "engine", "detectors", "__version__"} <= set(dir(gfocal))
    for name in dir(gfocal):
        assert getattr(gfocal, name) is not None
    assert gfocal.GFL is importlib.import_module("gfocal.detectors.gfl").GFL
    assert gfocal.model_zoo is importlib.import_module("gfocal.config.model_zoo")


@pytest.mark.parametrize("package", LAZY)
def test_type_checkers_see_the_same_names(package):
    tree = ast.parse(Path(package.__file__).read_text())
    (block,) = (x for x in tree.body if isinstance(x, ast.If) and ast.unparse(x.test)[0] == "T")
    seen = {
        alias.asname or alias.name: "." * node.level + node.module
        for node in block.body
        for alias in node.names
    }
    assert seen == package._LAZY


@pytest.mark.parametrize("package", LAZY)
def test_a_lazy_package(package):
    """Its names and its modules are there; no module can take the place of a name."""
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not modules & package._LAZY.keys()
    assert {*package.__all__} == package._LAZY.keys() <= {*dir(package)}
    for name in dir(package):
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing_such'$"):
        package.nothing_such  # noqa: B018


def test_a_wings_name_is_public_there_too():
    for name, wing in gfocal._LAZY.items():
        assert name in importlib.import_module(wing, "gfocal").__all__, name


@pytest.mark.parametrize(
    ("name", "nearest"), [("GFLhead", "GFLHead"), ("predictor", "Predictor"), ("engin", "engine")]
)
def test_a_misspelt_name(name, nearest):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; did you mean {nearest}\\?"):
        getattr(gfocal, name)


def test_importing_it_is_light_and_registers_the_architectures():
    """In a process of its own: Detectron2's modeling is the most of it."""
    code = (
        "import sys, gfocal\n"
        "loaded = set(sys.modules)\n"
        "from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY\n"
        "for name in ('GFL', 'QFLRetinaNet'): META_ARCH_REGISTRY.get(name)\n"
        "BACKBONE_REGISTRY.get('build_gfl_resnet_fpn_backbone')\n"
        "gfocal.engine.LazyTrainer, gfocal.inspect\n"
        "heavy = {'matplotlib', 'hydra', 'pycocotools.coco', 'detectron2.engine'}\n"
        "wings = {f'gfocal.{name}' for name in ('config', 'data', 'engine', 'inspect', 'cli')}\n"
        "print(sorted(loaded & (heavy | wings)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
