import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gfocal.cli import demo
from gfocal.engine import load_config
from gfocal.engine.lazy_trainer import LazyTrainer
from tests.helpers.tiny import make_gfl
from tests.helpers.toy import toy_dataset

ROOT = Path(__file__).parents[2]
TOY = str(ROOT / "tests/helpers/toy_config.py")
GFL = """
from detectron2.config import LazyCall as L
from tests.helpers.tiny import make_gfl
from tests.helpers.toy_config import parts

data, dataloader, train = parts()
model = L(make_gfl)(test_score_thresh=0.0, input_format="RGB")
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with images/ (two of them), toy.pth, and a GFL: gfl.py and gfl.pth."""
    toy_dataset(str(tmp_path / "images"), "toy_val")
    cfg = load_config(TOY)
    torch.save({"model": LazyTrainer.build_model(cfg).state_dict()}, tmp_path / "toy.pth")
    (tmp_path / "gfl.py").write_text(GFL)
    torch.save({"model": make_gfl().state_dict()}, tmp_path / "gfl.pth")
    return tmp_path


def arguments(files: Path, model: str = "toy", **flags) -> Namespace:
    defaults = {
        "config_file": TOY if model == "toy" else str(files / "gfl.py"),
        "weights": str(files / f"{model}.pth"),
        "input": [str(files / "images")],
        "output": str(files / "out"),
        "confidence": 0.0,
        "distributions": False,
        "sheet": False,
        "fast": False,
        "max_images": None,
        "opts": [],
        "trust": [],
    }
    return Namespace(**{**defaults, **flags})


def written(files: Path) -> list[str]:
    return sorted(os.listdir(files / "out"))


def test_fast(files):
    """The same boxes, as far as a picture shows; only of a GFL."""
    pictures = []
    for fast in (False, True):
        demo.run(arguments(files, "gfl", fast=fast))
        with Image.open(files / "out" / written(files)[0]) as picture:
            pictures.append(np.asarray(picture, dtype=float))
    assert np.abs(pictures[0] - pictures[1]).mean() < 10
    with pytest.raises(TypeError, match="optimize_for_inference knows the detectors of gfocal"):
        demo.run(arguments(files, fast=True))


def test_command_line(files):
    (files / "images" / "broken.png").write_bytes(b"not an image")
    paths = [str(ROOT), str(ROOT / "projects/GFocal"), os.environ.get("PYTHONPATH", "")]
    args = ["--config-file", TOY, "--weights", "toy.pth", "--confidence", "0.1"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/demo.py"), *args, "--output", "out",
         "--input", "images/toy*", "images", "data.num_classes=2"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, cwd=files,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    # The good images are drawn (once, though named twice), the broken one is reported.
    assert written(files) == ["toy_val_0_detections.png", "toy_val_1_detections.png"]
    assert done.returncode == 1
    assert "2/3" in done.stderr or "3/3" in done.stderr  # progress
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: images{os.sep}broken.png: UnidentifiedImageError: cannot ")


def test_pictures_of_both_kinds(files):
    assert demo.run(arguments(files, "gfl", distributions=True, max_images=1)) == []
    assert written(files) == ["toy_val_0_detections.png", "toy_val_0_distributions.png"]
    with Image.open(files / "out" / "toy_val_0_detections.png") as picture:
        assert picture.size == (640, 480)


def test_sheet(files):
    assert demo.run(arguments(files, "gfl", distributions=True, sheet=True)) == []
    assert written(files) == ["distributions.png", "predictions.png"]
    with Image.open(files / "out" / "predictions.png") as picture:
        assert np.asarray(picture).std() > 10
    problems = demo.run(arguments(files, "gfl", distributions=True, sheet=True, confidence=1.0))
    assert problems == ["no distributions.png: nothing scores at least 1.0"]


def test_confidence_decides_what_is_drawn(files):
    pictures = []
    for confidence in (0.0, 1.0):
        demo.run(arguments(files, confidence=confidence, max_images=1))
        with Image.open(files / "out" / "toy_val_0_detections.png") as picture:
            pictures.append(np.asarray(picture))
    assert (pictures[0] != pictures[1]).any()


def test_yacs_config(files):
    (files / "toy.yaml").write_text(
        "MODEL: {META_ARCHITECTURE: ToyDetector, DEVICE: cpu, RETINANET: {NUM_CLASSES: 2}}\n"
    )
    config = {"config_file": str(files / "toy.yaml"), "opts": ["INPUT.MIN_SIZE_TEST", "24"]}
    assert demo.run(arguments(files, max_images=1, **config)) == []
    assert written(files) == ["toy_val_0_detections.png"]


def test_mistakes(files):
    with pytest.raises(FileNotFoundError, match=r"^--input: no image matches '.*nothing\*'"):
        demo.run(arguments(files, input=[str(files / "nothing*")]))
    (files / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no image matches '.*empty'"):
        demo.run(arguments(files, input=[str(files / "empty")]))
    with pytest.raises(FileNotFoundError, match=r"no weight file '.*none\.pth'"):
        demo.run(arguments(files, weights=str(files / "none.pth")))
    with pytest.raises(ValueError, match="--max-images is 0"):
        demo.run(arguments(files, max_images=0))
    with pytest.raises(TypeError, match="distributions"):
        demo.run(arguments(files, distributions=True))  # the toy has no bins
    with pytest.raises(ValueError, match="unknown key 'model.foo'"):
        demo.run(arguments(files, opts=["+model.foo=3"]))
    for output in ("toy.pth", "toy.pth/pictures"):
        with pytest.raises(OSError, match=f"--output is '.*{output}'; expected a folder"):
            demo.run(arguments(files, output=str(files / output)))
    Image.new("RGB", (8, 8)).save(files / "toy_val_0.jpg")
    both = [str(files / "images"), str(files / "toy_val_0.jpg")]
    with pytest.raises(ValueError, match="^--input: .* written to the same picture"):
        demo.run(arguments(files, input=both))
    assert not (files / "out").exists() or not written(files)


def test_grey_palette_and_transparent_images(files):
    folder = files / "modes"
    folder.mkdir()
    for mode in ("L", "P", "RGBA", "1", "CMYK"):
        extension = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (20, 12)).save(folder / f"{mode}.{extension}")
    assert demo.run(arguments(files, input=[str(folder)])) == []
    assert len(written(files)) == 5
