"""import gfocal where PyTorch and Detectron2 are not installed, or broken."""

import sys
from pathlib import Path

import pytest

import gfocal
from gfocal import _installed
from tests.helpers.without_torch import NEEDED, OTHERS, packages, run


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages(tmp_path_factory.mktemp("bare") / "packages", *NEEDED)


def test_public_names_say_what_they_need(bare):
    """Whichever way they are imported. Those that need nothing are there."""
    code = f"""
import importlib, importlib.util
assert not any(importlib.util.find_spec(name) for name in {OTHERS})
import gfocal, gfocal.data, gfocal.engine, gfocal.export, gfocal.inspect
assert set(gfocal.__all__) <= set(dir(gfocal))
there = []
for package in (gfocal, gfocal.data, gfocal.engine, gfocal.export, gfocal.inspect):
    for name, module in package._LAZY.items():
        messages = []
        for get in (lambda: getattr(package, name),
                    lambda: getattr(importlib.import_module(module, package.__name__), name)):
            try:
                get()
            except ImportError as error:
                messages.append(str(error))
        if not messages:
            there.append(name)
            continue
        assert len(messages) == 2, name
        for text in messages:
            assert " needs PyTorch and Detectron2, which are not installed: install PyTo" in text
            assert text.startswith("gfocal.") and "tools/install_detectron2.py" in text
print(sorted(there))
try:
    gfocal.GFLhead
except AttributeError as error:
    print(error)
try:
    import gfocal.nothing
except ModuleNotFoundError as error:
    print(error)
"""
    done = run(bare, code)
    assert done.returncode == 0, done.stderr
    there = (
        "'Detections', 'ModelCard', 'OnnxPredictor', 'read_image', 'read_image', 'to_supervision'"
    )
    assert done.stdout.splitlines() == [
        f"[{there}]",
        "module 'gfocal' has no attribute 'GFLhead'; did you mean GFLHead?",
        "No module named 'gfocal.nothing'",
    ]


def test_what_is_there_all_the_same_is_not_blamed(tmp_path):
    """Without numpy, PyTorch is not the first thing to install."""
    folder = packages(tmp_path / "packages")
    done = run(folder, "import gfocal; gfocal.read_image")
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'numpy'"
    (folder / "detectron2").mkdir()  # a clone's folder is no package
    done = run(folder, "import gfocal; print(gfocal._installed.absent())")
    assert done.stdout == "('torch', 'detectron2')\n"


@pytest.mark.parametrize("text", ["libcudart.so.12: cannot open", "No module named 'torch._C'"])
def test_a_broken_installation_shows_its_own_error(tmp_path, text):
    folder = packages(tmp_path / "packages", "numpy")
    for name, code in (("torch", f'raise ImportError("{text}")'), ("detectron2", "import torch")):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)
    done = run(folder, "import gfocal")
    assert done.returncode == 1 and text in done.stderr.splitlines()[-1]
    assert "not installed" not in done.stderr
    (folder / "detectron2/__init__.py").unlink()  # then a name that is used shows it
    done = run(folder, "import gfocal; gfocal.GFL")
    assert done.returncode == 1 and text in done.stderr.splitlines()[-1]


def test_the_sentence_names_what_is_absent(monkeypatch):
    assert _installed.absent() == () and _installed.require("It") is None
    monkeypatch.setattr(_installed, "absent", lambda: ("detectron2",))
    with pytest.raises(
        ImportError, match="^It needs Detectron2, which is not installed: install D"
    ):
        _installed.require("It")


def test_nothing_is_in_the_way_where_all_is_installed():
    assert not any(isinstance(finder, _installed._Finder) for finder in sys.meta_path)
    assert gfocal.detectors.GFL is gfocal.GFL
