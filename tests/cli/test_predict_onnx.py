"""gfocal predict with an ONNX file, also where neither PyTorch nor Detectron2 is installed."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gfocal.cli import predict
from gfocal.engine.prediction import read_in_threads
from gfocal.engine.prediction_lines import Lines
from gfocal.export import OnnxPredictor
from tests.helpers.onnx_files import make_card, write_onnx
from tests.helpers.without_torch import NEEDED, OTHERS, packages, run

MAIN = "from gfocal.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages(tmp_path_factory.mktemp("bare") / "packages", *NEEDED)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with model.onnx, and photos/ of two sizes and of several kinds."""
    write_onnx(tmp_path / "model.onnx")
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for index in range(8):
        shape = (60, 90, 3) if index % 3 else (100, 64, 3)
        pixels = rng.integers(0, 256, shape, dtype=np.uint8) // (1 + index % 2)
        image = Image.fromarray(pixels.astype(np.uint8))
        if index == 5:
            image = image.convert("RGBA")
        exif = Image.Exif()
        exif[274] = 8 if index == 6 else 1
        image.save(tmp_path / f"photos/{index}.png", exif=exif)
    sixteen = np.arange(5400, dtype=np.uint16).reshape(60, 90) * 12
    Image.fromarray(sixteen).save(tmp_path / "photos/8.png")
    return tmp_path


def command(files: Path, *more: str, output: str = "results.json") -> list[str]:
    words = ["--weights", f"{files}/model.onnx", "--output", f"{files}/{output}"]
    return [*words, *(more or ("--input", f"{files}/photos"))]


def results(files: Path, name: str = "results.json") -> list[dict]:
    return json.loads((files / name).read_text())


@pytest.mark.parametrize("words", [[], ["--workers", "0", "--batch-size", "1"]])
def test_photos(files, words):
    assert predict.main([*command(files), *words]) == 0
    predictor = OnnxPredictor(files / "model.onnx")
    rows, table = results(files), results(files, "results.images.json")
    assert [image["id"] for image in table["images"]] == list(range(1, 10))
    assert table["categories"] == [
        {"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}, {"id": 4, "name": "owl"},
    ]  # fmt: skip
    total = 0
    for image in table["images"]:
        expected = predictor(image["file_name"])["instances"]
        assert expected.image_size == (image["height"], image["width"])
        found = [row for row in rows if row["image_id"] == image["id"]]
        assert [x["category_id"] for x in found] == [[7, 9, 4][x] for x in expected.pred_classes]
        boxes = np.array([x["bbox"] for x in found]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, expected.pred_boxes.tensor, atol=1e-4)
        np.testing.assert_allclose([x["score"] for x in found], expected.scores, atol=1e-5)
        total += len(found)
    assert len(rows) == total > 9
    assert (table["images"][6]["height"], table["images"][6]["width"]) == (64, 100)  # turned


def test_standard_deviations(files):
    write_onnx(files / "model.onnx", make_card(stds=True, outputs=[*make_card().outputs, "stds"]))
    assert predict.main(command(files)) == 0
    predictor = OnnxPredictor(files / "model.onnx")
    image = results(files, "results.images.json")["images"][0]
    expected = predictor(image["file_name"])["instances"].pred_box_stds
    found = [row["bbox_std"] for row in results(files) if row["image_id"] == image["id"]]
    assert len(found) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_ids_of_a_json_and_of_nobody(files):
    names = [f"{i}.png" for i in (5, 0, 3)]
    images = [{"id": 70 - i, "file_name": name} for i, name in enumerate(names)]
    categories = [{"id": 5, "name": "owl"}, {"id": 6, "name": "cat"}, {"id": 8, "name": "dog"}]
    (files / "val.json").write_text(json.dumps({"images": images, "categories": categories}))
    words = ["--input", f"{files}/val.json", "--image-root", f"{files}/photos"]
    assert predict.main(command(files, *words)) == 0
    assert {row["category_id"] for row in results(files)} == {6, 8}  # cats and dogs, by name
    assert not (files / "results.images.json").exists()
    write_onnx(files / "model.onnx", make_card(class_names=[], category_ids=[]))
    assert predict.main(command(files, output="b.json")) == 0
    assert {row["category_id"] for row in results(files, "b.json")} == {1, 2}
    names = [category["name"] for category in results(files, "b.images.json")["categories"]]
    assert names == ["1", "2", "3"]


def test_a_killed_run_goes_on(files, monkeypatch):
    assert predict.main(command(files, output="calm.json")) == 0
    add = Lines.add

    def killed(lines, file, records):
        if add(lines, file, records) or any(record["index"] == 4 for record in records):
            raise KeyboardInterrupt

    words = command(files, "--input", f"{files}/photos", "--batch-size", "2", "--confidence", "0")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Lines, "add", killed)
        predict.main(words)
    part = files / "results.json.part0.jsonl"
    done = part.read_text().count("\n")
    assert 1 < done < 10 and not (files / "results.json").exists()
    weights = (files / "model.onnx").read_bytes()
    write_onnx(files / "model.onnx", make_card(nms_thresh=0.5))
    with pytest.raises(SystemExit, match="with other weights. Go on with the same"):
        predict.main(words)
    (files / "model.onnx").write_bytes(weights)
    predicted = []
    original = OnnxPredictor.detect
    monkeypatch.setattr(
        OnnxPredictor,
        "detect",
        lambda self, inputs: predicted.extend(inputs) or original(self, inputs),
    )
    assert predict.main(words) == 0 and len(predicted) == 10 - done
    assert len(results(files)) == len(results(files, "calm.json"))
    assert not part.exists()
    with pytest.raises(SystemExit, match="--overwrite replaces it"):
        predict.main(words)
    assert predict.main([*words, "--overwrite"]) == 0


def test_batches_are_of_one_size_in_the_network(tmp_path, monkeypatch):
    """Which the heads of the files tell: 60 x 90 and 120 x 180 become 80 x 120."""
    write_onnx(tmp_path / "model.onnx")
    (tmp_path / "photos").mkdir()
    for index, size in enumerate(((90, 60), (90, 61), (180, 120), (90, 61), (90, 60))):
        Image.new("RGB", size, (200, 200, 200)).save(tmp_path / f"photos/{index}.png")
    batches = []
    original = OnnxPredictor.detect
    monkeypatch.setattr(
        OnnxPredictor,
        "detect",
        lambda self, inputs: (
            batches.append([x["height"] for x in inputs]) or original(self, inputs)
        ),
    )
    assert predict.main([*command(tmp_path), "--batch-size", "2"]) == 0
    assert batches == [[60, 120], [61, 61], [60]]
    assert [row["image_id"] for row in results(tmp_path)] == np.repeat(range(1, 6), 3).tolist()


def test_confidence_and_images_that_cannot_be_read(files, capsys):
    assert predict.main(command(files, output="all.json")) == 0
    scores = [row["score"] for row in results(files, "all.json")]
    (files / "photos/4.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as end:
        predict.main([*command(files), "--confidence", "0.4"])
    assert end.value.code == 1 and "4.png: UnidentifiedImageError" in capsys.readouterr().err
    rows = results(files)
    assert 0 < len(rows) < len(scores) and min(row["score"] for row in rows) >= 0.4
    assert 5 not in {row["image_id"] for row in rows}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--fast"], "--fast"),
        (["--num-gpus", "1"], "--num-gpus"),
        (["--num-g=0"], "--num-gpus"),
        (["--config-file", "a.py", "--trust", "b"], "--config-file, --trust"),
        (["--num-machines", "1", "--machine-rank", "0"], "--machine-rank, --num-machines"),
        (["model.test_score_thresh=0.1"], "model.test_score_thresh=0.1"),
        (["MODEL.DEVICE", "cpu"], "MODEL.DEVICE, cpu"),
        (["--", "a=1"], "a=1"),
    ],
)
def test_options_of_other_weights_are_refused(files, capsys, words, named):
    with pytest.raises(SystemExit) as end:
        predict.main([*command(files), *words])
    assert end.value.code == 2
    assert f"model.onnx is an ONNX file, which takes no {named}\n" in capsys.readouterr().err
    assert not (files / "results.json").exists()


def test_weights_that_predict_does_not_read(files, capsys, monkeypatch):
    for name in ("model.ts", "model.pt2"):
        with pytest.raises(SystemExit):
            predict.main([*command(files), "--weights", name])
        assert f"--weights is '{name}'; expected .pth or .onnx\n" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^error: no ONNX file 'x\.onnx'"):
        predict.main([*command(files), "--weights", "x.onnx"])
    write_onnx(files / "model.onnx", make_card(level="raw"))
    with pytest.raises(SystemExit, match=r"^error: \S+ is of level 'raw', .* --level full$"):
        predict.main(command(files))
    monkeypatch.setattr("gfocal.export.onnx_file.is_installed", lambda name: False)
    with pytest.raises(SystemExit, match=r"^error: \S+ ONNX files need onnxruntime, .*pip install"):
        predict.main(command(files))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        predict.main(command(files))
    assert "one process predicts with" in capsys.readouterr().err


def test_reading_ahead_keeps_the_order_and_is_bounded():
    running = []
    batches = [[i] for i in range(20)]
    found = read_in_threads(lambda batch: running.append(batch) or [2 * batch[0]], batches, 2)
    assert next(found) == [0]
    time.sleep(0.05)  # for all that was handed out
    assert len(running) <= 5
    assert list(found) == [[2 * i] for i in range(1, 20)]
    assert list(read_in_threads(lambda batch: list(batch), batches, 0)) == batches

    def fails(batch):
        raise OSError("a disk")

    with pytest.raises(OSError, match="a disk"):
        next(read_in_threads(fails, batches, 2))


def test_the_same_without_pytorch(files, bare):
    """Byte for byte, with numpy, Pillow and onnxruntime alone."""
    words = command(files)
    assert predict.main(words) == 0
    expected = {path.name: path.read_bytes() for path in files.glob("results*.json")}
    assert len(expected) == 2
    code = f"""
import importlib.util, json
assert not any(importlib.util.find_spec(name) for name in {OTHERS})
from gfocal.cli.main import main
assert main(["predict", *sys.argv[2:], "--overwrite"]) == 0
from gfocal.export import OnnxPredictor
predictor = OnnxPredictor(sys.argv[1] + "/model.onnx")
paths = [sys.argv[1] + f"/photos/{{i}}.png" for i in range(9)]
found = [x["instances"] for x in predictor(paths, batch_size=2)]
print(json.dumps([[x.scores.tolist(), x.pred_boxes.tensor.tolist(), x.image_size] for x in found]))
try:
    found[0].to_instances()
except ImportError as error:
    print(error)
assert not any(name.split(".")[0] in {OTHERS} for name in sys.modules)
"""
    done = run(bare, code, str(files), *words)
    assert done.returncode == 0, done.stderr
    for name, data in expected.items():
        assert (files / name).read_bytes() == data
    numbers, message = done.stdout.splitlines()
    predictor = OnnxPredictor(files / "model.onnx")
    here = [x["instances"] for x in predictor([files / f"photos/{i}.png" for i in range(9)], 2)]
    assert json.loads(numbers) == [
        [x.scores.tolist(), x.pred_boxes.tensor.tolist(), list(x.image_size)] for x in here
    ]
    assert message.startswith("Detections.to_instances needs PyTorch and Detectron2, which are not")


@pytest.mark.parametrize(
    ("words", "status", "out", "err"),
    [
        (["--version"], 0, "gfocal 0.1.0, without PyTorch and Detectron2\n", ""),
        (["--help"], 0, "usage: gfocal VERB [ARGUMENTS]", ""),
        (["predict", "--help"], 0, "usage: gfocal predict ", ""),
        ([], 0, "A first detector", ""),
        (
            ["train", "--help"],
            1,
            "",
            "gfocal: error: gfocal train needs PyTorch and Detectron2, wh",
        ),
        (
            ["zoo"],
            1,
            "",
            "gfocal: error: gfocal zoo needs PyTorch and Detectron2, which are not in",
        ),
        (
            ["predict", "--weights", "a.pth", "--input", "a", "--output", "b.json"],
            1,
            "",
            "error: a model of PyTorch (a.pth) needs PyTorch and Detectron2, which are not",
        ),
        (
            ["predict", "--weights", "a.onnx", "--input", "a.jpg", "--output", "b.json"],
            1,
            "",
            "error: --input: no image matches 'a.jpg'",
        ),
        (
            ["predict", "--weights", "a.onnx", "--input", "a", "--output", "b", "MODEL.DEVICE=cpu"],
            2,
            "",
            "usage: gfocal predict ",
        ),
    ],
)
def test_the_command_without_pytorch(bare, words, status, out, err):
    """One line says what is missing."""
    done = run(bare, MAIN, *words)
    assert (done.returncode, done.stdout[: len(out)]) == (status, out)
    assert done.stderr.startswith(err) and bool(done.stderr) == bool(err)
    if err and status == 1:
        assert done.stderr.count("\n") == 1


def test_nothing_but_the_package(tmp_path):
    """Without onnxruntime too, the command says what it lacks."""
    write_onnx(tmp_path / "model.onnx")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    folder = packages(tmp_path / "packages", "numpy", "PIL")
    words = ["predict", "--weights", f"{tmp_path}/model.onnx", "--input", f"{tmp_path}/a.png"]
    done = run(folder, MAIN, *words, "--output", f"{tmp_path}/out.json")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "ONNX files need onnxruntime, which is not installed: pip install" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a.png", "model.onnx", "packages"]
