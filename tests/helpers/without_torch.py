"""Python without PyTorch, Detectron2 and all else that the runtime does not need."""

import importlib
import subprocess
import sys
from pathlib import Path

import gfocal

NEEDED = ("numpy", "PIL", "onnxruntime")
OTHERS = ("torch", "detectron2", "tqdm", "omegaconf", "fvcore", "iopath", "pycocotools")


def packages(folder: Path, *names: str) -> Path:
    """A folder with links to this package and others, and to the libraries beside these."""
    folder.mkdir(exist_ok=True)
    (folder / "gfocal").symlink_to(Path(gfocal.__file__).parent)
    for name in names:
        place = Path(importlib.import_module(name).__file__).parent
        (folder / name).symlink_to(place)
        libraries = {"PIL": "pillow"}.get(name, name) + ".libs"
        if (place.parent / libraries).exists():
            (folder / libraries).symlink_to(place.parent / libraries)
    return folder


def run(folder: Path, code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process that finds Python's own modules and those of a folder, no others."""
    start = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", start + code, *argv],
        check=False,
        capture_output=True,
        text=True,
    )
