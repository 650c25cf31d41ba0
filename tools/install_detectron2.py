#!/usr/bin/env python
"""Install a pure-Python Detectron2 0.5 into the interpreter that runs this file, unless it has one.

If Detectron2 0.5 or newer can be imported, it is kept. So to use the official build (with the
compiled ops), install it first. Otherwise this tool

1. downloads the source distribution of Detectron2 0.5, pinned by its sha256,
2. applies ``REPLACEMENTS``, which carry the 2021 sources over to today's libraries,
3. puts a stub in the place of the compiled module ``detectron2._C``, which that distribution lacks,
4. installs the result with pip.

Usage: ``python tools/install_detectron2.py [--sdist FILE]``. The interpreter needs torch,
setuptools and wheel first. A failure is one line on stderr and exit status 1.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.util
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

MIN_PYTHON = (3, 10)
MIN_DETECTRON2 = (0, 5)
SDIST_REQUIREMENT = "detectron2-cdo==0.5"
SDIST_SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"


say = functools.partial(print, flush=True)


class InstallError(Exception):
    """A failure with a message of one line for the user."""


class Replacement(NamedTuple):
    """One change of one source file.

    Attributes:
        file: path in the source distribution.
        old: text to replace, as whole words only (``np.int`` is not in ``np.int64``).
        new: the text that replaces it.
        count: how often ``old`` occurs; another number is an error.
    """

    file: str
    old: str
    new: str
    count: int


REPLACEMENTS = (
    # Packaging: the project's own name, no extension modules, no 2021 version caps.
    Replacement("setup.py", '"detectron2_cdo"', '"detectron2"', 1),
    Replacement("setup.py", "    ext_modules=get_extensions(),\n", "", 1),
    Replacement(
        "setup.py", '    cmdclass={"build_ext": torch.utils.cpp_extension.BuildExtension},\n', "", 1
    ),
    Replacement(
        "setup.py",
        'find_packages(exclude=("configs", "tests*"))',
        'find_packages(include=("detectron2", "detectron2.*"))',
        1,
    ),
    Replacement(
        "setup.py", "get_model_zoo_configs()}", '["configs/**/*.yaml", "configs/**/*.py"]}', 1
    ),
    Replacement("setup.py", '"fvcore>=0.1.5,<0.1.6"', '"fvcore>=0.1.5"', 1),
    Replacement("setup.py", '"iopath>=0.1.7,<0.1.10"', '"iopath>=0.1.7"', 1),
    Replacement("setup.py", '"omegaconf>=2.1"', '"omegaconf>=2.1,<2.4"', 1),
    Replacement("setup.py", '"black==21.4b2"', '"black"', 1),
    Replacement("setup.py", '        "future",  # used by caffe2\n', "", 1),
    Replacement("setup.py", '        "pydot",  # used to save caffe2 SVGs\n', "", 1),
    # Pillow 10 removed LINEAR, an alias of BILINEAR.
    Replacement("detectron2/data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR", 1),
    # NumPy 1.24 removed its aliases of builtins; NumPy 2 raises where copy=False has to copy.
    Replacement("detectron2/data/build.py", "np.int", "int", 2),
    Replacement("detectron2/data/datasets/pascal_voc.py", "np.str", "str", 1),
    Replacement("detectron2/evaluation/pascal_voc_evaluation.py", "np.bool", "bool", 2),
    Replacement("detectron2/evaluation/sem_seg_evaluation.py", "np.float", "float", 5),
    Replacement("detectron2/evaluation/sem_seg_evaluation.py", "np.int", "int", 2),
    Replacement(
        "detectron2/layers/mask_ops.py", "np.array(mask, copy=False)", "np.asarray(mask)", 1
    ),
    Replacement("detectron2/structures/masks.py", "np.bool", "bool", 2),
    Replacement("detectron2/utils/video_visualizer.py", "np.bool", "bool", 1),
    Replacement("detectron2/utils/visualizer.py", "np.bool", "bool", 3),
    # setuptools 82 removed pkg_resources.
    Replacement(
        "detectron2/model_zoo/model_zoo.py",
        "import pkg_resources\n",
        "from importlib import resources\n",
        1,
    ),
    Replacement(
        "detectron2/model_zoo/model_zoo.py",
        "pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
        "    )\n",
        'str(resources.files("detectron2.model_zoo") / "configs" / config_path)\n',
        1,
    ),
    # PyTorch 2 ships no Caffe2, and warns of meshgrid without indexing and of lists of arrays.
    Replacement(
        "detectron2/export/__init__.py",
        "from .api import *\n",
        "try:\n    from .api import *\nexcept ImportError:  # Caffe2 is not there\n    pass\n",
        1,
    ),
    Replacement(
        "detectron2/data/detection_utils.py",
        "target.gt_boxes = Boxes(boxes)",
        "target.gt_boxes = Boxes(np.asarray(boxes))",
        1,
    ),
    Replacement(
        "detectron2/modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        1,
    ),
)

# The three functions are those that Detectron2's environment report calls.
STUB = '''"""Stands in for Detectron2's compiled ops, which this pure-Python build does not have."""


def get_compiler_version():
    return "none (pure-Python build)"


def get_cuda_version():
    return "none (pure-Python build)"


def has_cuda():
    return False


def __getattr__(name):
    raise AttributeError(
        f"detectron2._C.{name}: this is the pure-Python build of Detectron2 0.5, which lacks the "
        "compiled ops (deformable convolution, rotated boxes, fast COCO evaluation). "
        "Install the official Detectron2 build to use them."
    )
'''


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def apply_replacements(root: Path, replacements: tuple[Replacement, ...] = REPLACEMENTS) -> None:
    """Apply every replacement below ``root``.

    Raises:
        InstallError: a file is missing, or ``old`` does not occur exactly ``count`` times.
    """
    for file, old, new, count in replacements:
        path = root / file
        if not path.is_file():
            raise InstallError(f"{file}: not in the source distribution, expected {old!r} in it")
        before = r"(?<![\w.])" if re.match(r"\w", old) else ""
        after = r"(?!\w)" if re.search(r"\w\Z", old) else ""
        pattern = before + re.escape(old) + after
        text, found = re.subn(pattern, new.replace("\\", r"\\"), path.read_text("utf-8"))
        if found != count:
            raise InstallError(f"{file}: expected {old!r} {count} times, found it {found} times")
        path.write_text(text, "utf-8")


def prepare_source(sdist: Path, folder: Path) -> Path:
    """Unpack the source distribution and make it installable without a compiler.

    Args:
        sdist: the .tar.gz; its hash is checked first.
        folder: an empty directory to unpack into.

    Returns:
        The directory that holds ``setup.py``.

    Raises:
        InstallError: wrong hash, or a replacement that does not match.
    """
    digest = sha256(sdist)
    if digest != SDIST_SHA256:
        raise InstallError(f"{sdist.name}: sha256 is {digest}, expected {SDIST_SHA256}")
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):  # Python 3.10.12, 3.11.4, 3.12
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)
    (root,) = folder.iterdir()
    apply_replacements(root)
    (root / "detectron2" / "_C.py").write_text(STUB, "utf-8")
    return root


def pip(*args: str) -> None:
    """Run pip in this interpreter, quietly; the InstallError of a failure has its first error."""
    command = [sys.executable, "-m", "pip", *args, "--disable-pip-version-check"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        output = (result.stdout + result.stderr).strip() or "no output"
        lines = output.splitlines()
        reason = ([line for line in lines if line.startswith("ERROR:")] or lines)[0]
        if "DO NOT MATCH THE HASHES" in output:
            reason = f"the download does not have the sha256 {SDIST_SHA256}"
        elif "Could not find a version" in output:
            reason += " (is there a network connection?)"
        raise InstallError(f"pip {args[0]} failed: {reason}")


def download_sdist(folder: Path) -> Path:
    """Download the pinned source distribution into ``folder`` and return its path."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{SDIST_REQUIREMENT} --hash=sha256:{SDIST_SHA256}\n", "utf-8")
    pip(
        *("download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"),
        *("--require-hashes", "--retries", "2", "--dest", str(folder), "-r", str(requirements)),
    )
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


def find_detectron2() -> tuple[str, str] | None:
    """Look for Detectron2, and import it in a fresh process.

    Returns:
        (version, directory), or None if there is no Detectron2.

    Raises:
        InstallError: there is one that cannot be used. It is not overwritten.
    """
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:  # no origin: just a directory of that name
        return None
    where = str(Path(spec.origin).parent)
    code = "import detectron2, detectron2.modeling as _; print(detectron2.__version__)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise InstallError(
            f"the Detectron2 at {where} cannot be imported ({reason}); "
            "repair it, or remove it with 'pip uninstall detectron2', and run this again"
        )
    version = result.stdout.strip().splitlines()[-1]
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < MIN_DETECTRON2:
        raise InstallError(f"the Detectron2 at {where} is {version}; 0.5 or newer is needed")
    return version, where


def check_interpreter() -> None:
    """Raise an InstallError if this interpreter lacks anything that the build needs."""
    missing = [
        name for name in ("torch", "setuptools", "wheel") if not importlib.util.find_spec(name)
    ]
    if missing:
        raise InstallError(f"{sys.executable} needs {', '.join(missing)} first: pip install them")


def install(sdist: Path | None) -> None:
    """Install the pure-Python build, from ``sdist`` or from a download."""
    check_interpreter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if sdist is None:
            say(f"Downloading the sources: {SDIST_REQUIREMENT}, sha256 {SDIST_SHA256}")
            sdist = download_sdist(folder)
        elif not sdist.is_file():
            raise InstallError(f"--sdist {sdist}: no such file")
        source = folder / "source"
        source.mkdir()
        root = prepare_source(sdist, source)
        say(f"Applied {len(REPLACEMENTS)} source replacements; detectron2._C is a stub")
        say("Installing it with pip")
        pip("install", "--no-build-isolation", "--use-pep517", str(root))


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sdist", type=Path, help="a local copy of the source distribution")
    args = parser.parse_args(argv)
    try:
        if sys.version_info < MIN_PYTHON:
            raise InstallError(
                f"Python {'.'.join(map(str, MIN_PYTHON))} or newer is needed, "
                f"{sys.executable} is {sys.version.split()[0]}"
            )
        found = find_detectron2()
        if found is not None:
            say(f"Detectron2 {found[0]} is there, in {found[1]}: nothing to do")
            return 0
        say(f"No Detectron2 for {sys.executable}: building the pure-Python 0.5")
        install(args.sdist)
        importlib.invalidate_caches()
        found = find_detectron2()
        if found is None:
            raise InstallError("pip succeeded, but detectron2 still cannot be found")
        say(f"Installed Detectron2 {found[0]} (pure Python, no compiled ops) in {found[1]}")
    except (InstallError, OSError) as error:
        print(f"install_detectron2: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
