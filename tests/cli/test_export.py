"""`gfocal export`: what it writes, prints and refuses."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from gfocal.cli import export
from gfocal.config import load_config
from gfocal.engine import Predictor
from gfocal.export import OnnxPredictor
from gfocal.export.card import KEY
from gfocal.export.formats import FORMATS
from gfocal.weights import describe
from tests.helpers.spread import make_spread_gfl

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
SHAPES = ["1 x 24 x 60", "1 x 32 x 24"]
CONFIG = """
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from tests.helpers.spread import make_spread_gfl
from tests.helpers.toy_config import parts

data, dataloader, train = parts()
model = L(make_spread_gfl)(test_score_thresh=0.05, input_format="RGB")
dataloader["test"].mapper.image_format = "RGB"
dataloader["test"].dataset.names = "not_there"
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> Path:
    """A folder with config.py, and weights.pth that know their classes."""
    monkeypatch.syspath_prepend(str(ROOT))
    (tmp_path / "config.py").write_text(CONFIG)
    torch.manual_seed(0)
    model = make_spread_gfl(input_format="RGB")
    description = describe(
        load_config(tmp_path / "config.py"),
        model=model,
        class_names=["ant", "bee", "cat"],
        category_ids=[7, 8, 9],
    ).plain()
    description["metrics"] = {"bbox/AP": 41.5, "bbox/APl": float("nan")}
    weights = {"model": model.state_dict(), KEY: description}
    torch.save(weights, tmp_path / "weights.pth")
    return tmp_path


def run(files: Path, *more: str, output: str = "model.ts") -> int:
    words = ["--config-file", f"{files}/config.py", "--weights", f"{files}/weights.pth"]
    return export.main([*words, "--output", f"{files}/{output}", *more])


def card_of(path: Path):
    return FORMATS[export.SUFFIXES[path.suffix]].read(str(path)).card


def test_an_onnx_file(files, capsys):
    assert run(files, output="model.onnx") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["batch", "threshold", "detections"]
    assert "4 x 256 x 320" in lines[2] and lines[2].split()[-1] == "0"
    assert lines[-1].startswith(f"wrote {files}/model.onnx: onnx, level full, 0.")
    metadata = onnxruntime.InferenceSession(f"{files}/model.onnx").get_modelmeta()
    card = json.loads(metadata.custom_metadata_map[KEY])
    assert card["class_names"] == ["ant", "bee", "cat"] and card["category_ids"] == [7, 8, 9]
    assert card["resize"] == {"short_edge": 24, "max_size": 64} and card["input_format"] == "RGB"
    assert card["description"]["metrics"] == {"bbox/AP": 41.5}  # JSON has no nan
    assert card["description"]["kind"] == "lazy"
    assert str(files) not in metadata.custom_metadata_map[KEY]


def test_the_suffix_says_the_format(files):
    assert run(files, "--level", "decoded", "--stds", output="model.pt2") == 0
    card = card_of(files / "model.pt2")
    assert (card.level, card.stds, card.preprocessing) == ("decoded", True, "inside")
    assert run(files, "--preprocessing", "outside", "--half") == 0
    card = card_of(files / "model.ts")
    assert (card.level, card.preprocessing, card.precision) == ("full", "outside", "float16")


def test_standard_deviations_are_there_unless_they_are_left_out(files, capsys):
    assert run(files, output="with.onnx") == run(files, "--no-stds", output="without.onnx") == 0
    photo = np.random.default_rng(0).integers(0, 255, (48, 120, 3), dtype=np.uint8)
    found = OnnxPredictor(files / "with.onnx")(photo)["instances"]
    expected = Predictor(load_config(files / "config.py"), files / "weights.pth")(photo)
    expected = expected["instances"]
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.pred_box_stds, expected.pred_box_stds, rtol=1e-3, atol=1e-4)
    plain = OnnxPredictor(files / "without.onnx")(photo)["instances"]
    np.testing.assert_array_equal(plain.pred_boxes.tensor, found.pred_boxes.tensor)
    with pytest.raises(AttributeError, match=r"exported without standard deviations \(--no-stds"):
        plain.pred_box_stds  # noqa: B018


def test_overrides_reach_the_file(files):
    assert run(files, "model.test_score_thresh=0.3", "model.max_detections_per_image=7") == 0
    card = card_of(files / "model.ts")
    assert card.score_thresh == pytest.approx(0.3) and card.max_detections == 7
    assert card.description["config"]["model"]["test_score_thresh"] == 0.3


def test_images_to_compare_on(files, capsys):
    photos = files / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for index, shape in enumerate([(48, 120, 3), (64, 48, 3)]):
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(photos / f"{index}.png")
    assert run(files, "--images", str(photos)) == 0
    rows = capsys.readouterr().out.splitlines()[1:-1]
    assert [row.split()[:5] for row in rows[4:6]] == [shape.split() for shape in SHAPES]
    assert run(files, "--int8", "--calibration", f"{photos}/*.png", output="int8.onnx") == 0
    assert card_of(files / "int8.onnx").precision == "int8"


def test_augmentations_that_are_no_resize(files, capsys):
    config = files / "config.py"
    key = 'dataloader["test"].mapper.augmentations'
    config.write_text(f"{CONFIG}{key} = [L(T.Resize)(shape=32)]\n")
    assert run(files) == 0 and not capsys.readouterr().err
    assert card_of(files / "model.ts").resize == {"height": 32, "width": 32}
    config.write_text(f"{CONFIG}{key} = [L(T.Resize)(shape=32), L(T.Resize)(shape=64)]\n")
    assert run(files, "--overwrite") == 0
    assert "the file will not say how an image is resized" in capsys.readouterr().err
    assert card_of(files / "model.ts").resize is None
    for nothing in ("[]", "[L(T.ResizeShortestEdge)(short_edge_length=0, max_size=0)]"):
        config.write_text(f"{CONFIG}{key} = {nothing}\n")
        assert run(files, "--overwrite") == 0
        assert card_of(files / "model.ts").resize == {} and not capsys.readouterr().err


def test_what_a_file_cannot_have_is_told(files, capsys):
    assert run(files, "+train.test_augmentation.enabled=true", "+train.limit=inf") == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: the file will have no test-time augmentation")
    assert second.startswith(
        "warning: the file will carry no config, because the config has an inf"
    )
    card = card_of(files / "model.ts")
    assert card.description["kind"] == "" and card.description["config"] is None
    assert card.description["metrics"] == {"bbox/AP": 41.5}


def test_a_file_that_is_there_stays(files):
    (files / "model.ts").write_text("mine")
    with pytest.raises(SystemExit, match="which is there; --overwrite replaces it"):
        run(files)
    assert (files / "model.ts").read_text() == "mine"
    assert run(files, "--overwrite") == 0
    assert card_of(files / "model.ts").level == "full"


def test_a_file_that_fails_is_removed(files, monkeypatch, capsys):
    from gfocal.export import exporting
    from gfocal.export.parity import Limits

    (files / "model.ts").write_text("mine")
    monkeypatch.setattr(exporting, "LIMITS", {"float32": Limits(-1.0, 0.0, 0.0)})
    with pytest.raises(SystemExit, match="(?s)does not do what the detector does.*worst score"):
        run(files, "--overwrite")
    assert (files / "model.ts").read_text() == "mine"
    assert {x.name for x in files.iterdir()} == {"config.py", "weights.pth", "model.ts"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--output", "model.tflite"],
            "'model.tflite'; expected a file ending in .onnx, .ts, .pt2",
        ),
        (["--output", "m.ts", "--format", "onnx"], "'m.ts'; expected a file ending in .onnx"),
        (
            ["--output", "m.ts", "--int8", "--calibration", "x"],
            "--int8 is for ONNX, without --half",
        ),
        (["--output", "m.onnx", "--int8"], "--int8 and --calibration PATH belong together"),
        (["--output", "m.onnx", "--calibration", "x"], "belong together"),
        (["--output", "m.onnx", "--level", "dense"], "invalid choice: 'dense'"),
        ([], "the following arguments are required: --output"),
    ],
)
def test_wrong_words(words, message, capsys):
    with pytest.raises(SystemExit) as error:
        export.parse_args(["--weights", "w.pth", *words])
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_a_package_that_is_not_installed(files, monkeypatch):
    monkeypatch.setattr("gfocal.export.onnx_format.is_installed", lambda name: name != "onnx")
    with pytest.raises(SystemExit, match="onnx not installed.*pip install gfocal\\[export\\]"):
        run(files, output="model.onnx")
    assert not (files / "model.onnx").exists()
