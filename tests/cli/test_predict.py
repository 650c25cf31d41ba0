import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gfocal.cli import predict
from gfocal.engine import Predictor, load_config
from tests.helpers.tiny import make_gfl

ROOT = Path(__file__).parents[2]
CONFIG = """
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from tests.helpers.tiny import make_gfl
from tests.helpers.toy_config import data, dataloader, train

model = L(make_gfl)(test_score_thresh=0.0, max_detections_per_image=5, input_format="RGB")
dataloader["test"].dataset.names = "predicted"
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> Path:
    """A folder with config.py, weights.pth and photos/ of two sizes."""
    monkeypatch.syspath_prepend(str(ROOT))
    (tmp_path / "config.py").write_text(CONFIG)
    torch.save({"model": make_gfl().state_dict()}, tmp_path / "weights.pth")
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(7):
        shape = (48, 64, 3) if index % 3 else (64, 48, 3)
        image = Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8))
        image.save(tmp_path / f"photos/{index}.png")
    return tmp_path


def command(files: Path, *more: str, output: str = "out/results.json") -> list[str]:
    words = ["--config-file", f"{files}/config.py", "--weights", f"{files}/weights.pth"]
    words += ["--output", f"{files}/{output}", "--workers", "0", "--num-gpus", "0"]
    return [*words, *(more or ("--input", f"{files}/photos"))]


def results(files: Path, name: str = "out/results.json") -> list[dict]:
    return json.loads((files / name).read_text())


def test_photos(files):
    assert predict.main(command(files)) == 0
    predictor = Predictor(load_config(files / "config.py"), files / "weights.pth")
    rows = results(files)
    table = results(files, "out/results.images.json")
    assert [image["id"] for image in table["images"]] == [1, 2, 3, 4, 5, 6, 7]
    assert table["images"][0]["width"] == 48 and table["images"][1]["width"] == 64
    assert [category["id"] for category in table["categories"]] == [1, 2, 3]
    for image in table["images"]:
        expected = predictor(image["file_name"])["instances"]
        found = [row for row in rows if row["image_id"] == image["id"]]
        assert len(found) == len(expected) > 0
        assert [x["category_id"] - 1 for x in found] == expected.pred_classes.tolist()
        boxes = np.array([x["bbox"] for x in found])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, expected.pred_boxes.tensor, atol=1e-4)
        np.testing.assert_allclose([x["score"] for x in found], expected.scores, rtol=1e-5)
    assert sorted(os.listdir(files / "out")) == ["results.images.json", "results.json"]


def test_a_json_in_coco_format(files):
    names = [f"{i}.png" for i in (5, 0, 3)]
    images = [{"id": 70 - i, "file_name": name} for i, name in enumerate(names)]
    document = {"images": images, "categories": [{"id": i, "name": f"c{i}"} for i in (9, 4, 7)]}
    (files / "val.json").write_text(json.dumps(document))
    words = ["--input", f"{files}/val.json", "--image-root", f"{files}/photos"]
    assert predict.main(command(files, *words)) == 0
    rows = results(files)
    assert list(dict.fromkeys(row["image_id"] for row in rows)) == [70, 69, 68]  # as in the file
    assert {row["category_id"] for row in rows} <= {4, 7, 9}
    assert os.listdir(files / "out") == ["results.json"]
    # The ids of categories follow names: nobody can say which class is which of two.
    document["categories"].pop()
    (files / "val.json").write_text(json.dumps(document))
    with pytest.raises(SystemExit, match="has the categories c9, c4; the detector finds 3 classes"):
        predict.main(command(files, *words, output="b.json"))


def test_confidence_and_overrides(files):
    assert predict.main(command(files)) == 0
    scores = sorted(row["score"] for row in results(files))
    middle = scores[len(scores) // 2]
    words = ["--input", f"{files}/photos", "model.max_detections_per_image=3", "--confidence"]
    assert predict.main(command(files, *words, str(middle), output="b.json")) == 0
    rows = results(files, "b.json")
    assert 0 < len(rows) and all(row["score"] >= middle for row in rows)


@pytest.mark.parametrize("damage", [b"", b"no image", None, "truncated"])
def test_images_that_cannot_be_read(files, damage, capsys):
    assert predict.main(command(files, output="all.json")) == 0
    path = files / "photos/4.png"
    good = path.read_bytes()
    if damage is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(good[:-2000] if damage == "truncated" else damage)
    with pytest.raises(SystemExit) as end:
        predict.main(command(files))
    assert end.value.code == 1 and "4.png" in capsys.readouterr().err
    every = results(files, "all.json")
    assert results(files) == [row for row in every if row["image_id"] != 5]
    if damage is None:
        path.rmdir()
    path.write_bytes(good)
    assert predict.main(command(files)) == 0  # goes on with what was missing
    assert results(files) == every


def test_a_finished_output_is_not_replaced(files):
    assert predict.main(command(files)) == 0
    with pytest.raises(SystemExit, match="--overwrite replaces it"):
        predict.main(command(files))
    assert predict.main([*command(files), "--overwrite"]) == 0


@pytest.mark.slow
def test_killed_three_times(files):
    """The file equals that of an undisturbed run, byte for byte; also by two processes."""
    assert predict.main(command(files, output="calm.json")) == 0
    slow = (
        "import sys, time; from gfocal.engine import prediction; from gfocal.cli import predict\n"
        "add = prediction._Lines.add\n"
        "def late(*args): add(*args); time.sleep(60)\n"
        "prediction._Lines.add = late\n"
        "predict.main(sys.argv[1:])"
    )
    words = [*command(files), "--batch-size", "2"]
    calm = files / "calm2.json"
    assert predict.main([*command(files, output="calm2.json"), "--batch-size", "2"]) == 0
    part = files / "out/results.json.part0.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    for times in (1, 2, 3):
        before = part.read_text().count("\n") if part.exists() else 1
        process = subprocess.Popen([sys.executable, "-c", slow, *words], env=environment)
        while not part.exists() or part.read_text().count("\n") <= before:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (files / "out/results.json").exists(), times
    with open(part, "a") as file:
        file.write('{"index": 6, "heig')  # the last kill came in the middle of a line
    with pytest.raises(SystemExit, match="with other batch_size. Go on with the same"):
        predict.main([*command(files), "--batch-size", "3"])
    assert predict.main(words) == 0
    assert (files / "out/results.json").read_bytes() == calm.read_bytes()


@pytest.mark.slow
def test_two_processes_share_the_images(files):
    assert predict.main(command(files, output="one.json")) == 0
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    words = [*run, "-m", "gfocal.cli.predict", *command(files)]
    subprocess.run(words, check=True, env={**environment, "OMP_NUM_THREADS": "1"})
    assert (files / "out/results.json").read_bytes() == (files / "one.json").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "{}/none"], "no image matches"),
        (["--input", "{}/empty"], "no image matches"),
        (["--input", "{}/none.json"], "no json"),
        (["--input", "{}/photos", "--image-root", "x"], "--image-root is for a json"),
        (["--input", "{}/a.json", "{}/photos"], "expected one json, or images"),
        (["--input", "{}/photos", "train.max_itr=3"], "train.max_iter"),
    ],
)
def test_mistakes(files, words, message):
    (files / "empty").mkdir()
    with pytest.raises(SystemExit, match=message):
        predict.main(command(files, *(word.format(files) for word in words)))
    assert not list(files.glob("out/*.json"))


def test_wrong_options(capsys):
    for words in (["--batch-size", "0"], ["--workers", "-1"], ["--confidence", "1.5"]):
        with pytest.raises(SystemExit):
            predict.main(["--weights", "w", "--input", "a", "--output", "b", *words])
        assert words[0] in capsys.readouterr().err
