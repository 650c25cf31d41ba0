"""Packaging: the package lives in projects/GFocal.

configs/ and benchmarks/ ship inside it, as gfocal/configs and gfocal/benchmarks. An editable
install is one folder on the path: the package finds both in the checkout. The finder that
setuptools makes of three folders comes too late where the working directory has a folder `gfocal`.

Detectron2 is not among the requirements, because no package index has it under its name: install
the official build, or run tools/install_detectron2.py. gfocal says so where it needs it. Without
Detectron2 and PyTorch it still runs ONNX files, with NumPy, Pillow and onnxruntime: pip install
--no-deps.
"""

import sys
from pathlib import Path

from setuptools import find_packages, setup

FILE = Path(__file__).parent / "projects" / "GFocal" / "gfocal" / "_version.py"
VERSION = FILE.read_text().split('__version__ = "')[1].rstrip('"\n')
SHIPPED = () if "editable_wheel" in sys.argv else ("benchmarks", "configs")

setup(
    name="gfocal",
    version=VERSION,
    description="Generalized Focal Loss v1 and v2 for Detectron2",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        *find_packages("projects/GFocal", include=("gfocal", "gfocal.*")),
        *(f"gfocal.{name}" for name in SHIPPED),
    ],
    package_dir={"": "projects/GFocal", **{f"gfocal.{name}": name for name in SHIPPED}},
    # Config folders have hyphens in their names: they are data, not packages.
    package_data={
        "gfocal": ["py.typed"],
        "gfocal.configs": ["**/*.py", "**/*.yaml"],
        "gfocal.inspect.page": ["*.html", "*.css", "*.js"],
    },
    entry_points={"console_scripts": ["gfocal = gfocal.cli.main:main"]},
    install_requires=[
        "torch>=2.0",
        "torchvision>=0.15",
        "numpy>=1.22",
        "fvcore>=0.1.5",
        "pycocotools>=2.0.2",
        "omegaconf>=2.1,<2.4",
        "hydra-core>=1.1",
        "matplotlib>=3.5",
        "Pillow>=9.1",
        "scipy>=1.12",  # isotonic_regression
        "tqdm",
    ],
    extras_require={
        # To write ONNX files (onnxscript, onnx) and to run them. IR version 10 needs 1.18.
        "export": ["onnx>=1.17", "onnxruntime>=1.18", "onnxscript>=0.5"],
        "openvino": ["openvino>=2025.0"],
        # Backbones of timm. (Its option pretrained_cfg_overlay is of 0.9.)
        "timm": ["timm>=0.9"],
        # Detections in the form of Roboflow's supervision.
        "supervision": ["supervision>=0.20"],
    },
)
