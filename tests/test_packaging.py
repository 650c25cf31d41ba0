"""What ``pip install .`` installs: the package with configs and benchmarks, nothing else."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import detectron2
import numpy
import pytest
import torch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "projects" / "GFocal" / "gfocal"


def files_below(folder: Path, *suffixes: str) -> set[str]:
    """Paths, relative to ``folder``, of its files with one of the suffixes."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in suffixes}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree: a build writes into it."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("projects", "benchmarks", "configs", "tests"):
        ignore = shutil.ignore_patterns("__pycache__", "output")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def run_python(*args: str, cwd: Path = ROOT) -> str:
    """Run this interpreter and return its stdout."""
    result = subprocess.run(
        [sys.executable, *args], check=False, capture_output=True, text=True, cwd=cwd
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    flags = ("--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check")
    run_python("-m", "pip", "wheel", *flags, "-w", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    assert wheel.name == "gfocal-0.1.0-py3-none-any.whl"
    return wheel


@pytest.fixture(scope="module")
def wheel_files(wheel: Path) -> set[str]:
    """File names in the wheel, its metadata left out."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_configs_lie_beside_the_package(wheel_files: set[str]) -> None:
    configs = files_below(ROOT / "configs", ".py", ".yaml")
    assert configs
    packed = {name for name in wheel_files if name.startswith("gfocal/configs/")}
    assert packed == {f"gfocal/configs/{name}" for name in configs}


def test_package_and_nothing_else(wheel_files: set[str]) -> None:
    modules = files_below(PACKAGE, ".py")
    assert "__init__.py" in modules
    benchmarks = {f"benchmarks/{name}" for name in files_below(ROOT / "benchmarks", ".py")}
    assert "benchmarks/tasks.py" in benchmarks
    page = files_below(PACKAGE, ".html", ".css", ".js")
    assert {"inspect/page/template.html", "inspect/page/page.css"} < page
    packed = {name for name in wheel_files if not name.startswith("gfocal/configs/")}
    assert packed == {f"gfocal/{name}" for name in modules | benchmarks | page | {"py.typed"}}


def test_editable_install_is_the_checkout_on_the_path(source: Path, tmp_path: Path) -> None:
    """Also where the working directory has a folder of the package's name, such as a clone."""
    build = f"import setuptools.build_meta as backend; backend.build_editable({str(tmp_path)!r})"
    run_python("-c", build, cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (tmp_path / "gfocal").mkdir()
    # -E -S: without PYTHONPATH and this environment's site-packages, where gfocal may be too.
    look = (
        f"import site; site.addsitedir({str(site)!r});"
        "import importlib.util; print(importlib.util.find_spec('gfocal').origin)"
    )
    origin = Path(run_python("-E", "-S", "-c", look, cwd=tmp_path).strip())
    assert origin == source / "projects" / "GFocal" / "gfocal" / "__init__.py"
    assert (origin.parents[3] / "configs").is_dir()


def test_setup_imports_no_torch() -> None:
    code = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = ['setup.py', '--version'];"
        "runpy.run_path('setup.py', run_name='__main__')"
    )
    assert run_python("-c", code).split() == ["0.1.0"]


@pytest.mark.slow
def test_the_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Its command lists the zoo, trains a config of the package, and predicts with the weights."""
    venv = tmp_path / "an environment"
    run_python("-m", "venv", "--without-pip", str(venv))
    (site,) = venv.glob("lib/python*/site-packages")
    flags = ("--no-deps", "--no-index", "--disable-pip-version-check", "--quiet")
    python = ("--python", str(venv / "bin/python"))
    run_python("-m", "pip", *python, "install", *flags, str(wheel), cwd=tmp_path)
    # Detectron2 and the other requirements are this environment's; as a path, without its .pth.
    folders = {str(Path(module.__file__).parents[1]) for module in (torch, detectron2, numpy)}
    (site / "requirements.pth").write_text("\n".join(sorted(folders)))

    def gfocal(*words: str) -> str:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [venv / "bin/gfocal", *words], cwd=tmp_path, env={**env, "OMP_NUM_THREADS": "1"},
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "gfocal").mkdir()  # as where a clone lies
    place = f"in {site}/gfocal/configs/COCO-Detection/gfl_R_50_FPN_1x.py\n"
    assert place in gfocal("zoo", "gfl_R_50_FPN_1x")
    data = "{_target_:gfocal.data.shapes.register_shapes,split:val,num_images:4}"
    changes = ["train.max_iter=2", "train.output_dir=out", "dataloader.train.total_batch_size=2"]
    for loader in ("train", "test"):
        changes += [f"dataloader.{loader}.dataset.names={data}"]
        changes += [f"dataloader.{loader}.num_workers=0"]
    gfocal("train", *changes, "--config-file", "quick_start/shapes_gflv2.py", "--num-gpus", "0")
    assert (tmp_path / "out/model_final.pth").is_file()
    (images,) = tmp_path.glob("datasets/gfocal_shapes/*/images")
    words = ["--weights", "out/model_final.pth", "--input", str(images), "--output", "results.json"]
    words += ["--workers", "0", "--num-gpus", "0", "--html", "page.html"]
    gfocal("predict", *words)  # the weights carry the config
    assert "</html>" in (tmp_path / "page.html").read_text()
    table = json.loads((tmp_path / "results.images.json").read_text())
    assert len(table["images"]) == 4 and len(table["categories"]) == 6
