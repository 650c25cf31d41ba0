"""gfocal predict --html. What the page looks like is in tests/inspect/test_page_in_browser.py."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from PIL import Image

from gfocal import load_config
from gfocal.cli import predict
from gfocal.engine.prediction_lines import Lines
from tests.cli.test_predict import CONFIG
from tests.helpers.onnx_files import make_card, write_onnx
from tests.helpers.pages import scripts_of
from tests.helpers.tiny import make_gfl
from tests.helpers.without_torch import NEEDED, packages, run

ROOT = Path(__file__).parents[2]
REPRESENTATIONS = "from gfocal.modeling.representations import DiracDistance, GaussianDistance"
OTHER_HEAD = """
from tests.helpers.tiny import make_head
from gfocal.modeling.quality import NoQuality
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.terms import GIoULoss, QualityFocalLoss

model.head = L(make_head)(quality_predictor=L(NoQuality)(), box_representation=L({})())
model.criterion = L(GFLCriterion)(cls_loss=L(QualityFocalLoss)(), box_loss=L(GIoULoss)())
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> Path:
    """A folder with config.py, weights.pth and photos/ of three sizes. A page shrinks the last."""
    monkeypatch.syspath_prepend(str(ROOT))
    (tmp_path / "config.py").write_text(CONFIG)
    torch.manual_seed(0)
    torch.save({"model": make_gfl().state_dict()}, tmp_path / "weights.pth")
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index, size in enumerate([(48, 120), (64, 48), (48, 120), (96, 800)]):
        pixels = rng.integers(0, 256, (*size, 3)) * (1.0, 0.6, 0.3)  # red on the whole
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"photos/{index}.png")
    return tmp_path


def command(files: Path, *more: str) -> list[str]:
    words = ["--config-file", f"{files}/config.py", "--weights", f"{files}/weights.pth"]
    words += ["--input", f"{files}/photos", "--output", f"{files}/r.json", "--workers", "0"]
    return [*words, "--num-gpus", "0", "--html", f"{files}/pages/page.html", *more]


def items_of(files: Path) -> list[dict]:
    return [json.loads(text) for text in scripts_of(files / "pages/page.html", "item")]


def test_a_page_of_the_json(files, capsys):
    assert predict.main(command(files)) == 0
    assert capsys.readouterr().out == f"look at {files}/pages/page.html: 4 images\n"
    rows = json.loads((files / "r.json").read_text())
    assert not any("sides" in row for row in rows)
    names = json.loads((files / "r.images.json").read_text())["categories"]
    names = {category["id"]: category["name"] for category in names}
    items = items_of(files)
    assert [item["title"] for item in items] == [f"{i}.png" for i in range(4)]
    assert [(item["width"], item["height"]) for item in items] == [
        (120, 48), (48, 64), (120, 48), (640, 77),
    ]  # fmt: skip
    assert [item["scale"] for item in items] == [1, 1, 1, 0.8]
    for number, item in enumerate(items, 1):
        found = [row for row in rows if row["image_id"] == number]
        assert len(item["boxes"]) == len(found) > 0
        for box, row in zip(item["boxes"], found):
            x, y, width, height = row["bbox"]
            assert box["bbox"] == pytest.approx([x, y, x + width, y + height], abs=0.006)
            assert box["score"] == pytest.approx(row["score"], abs=6e-5)
            assert box["stds"] == pytest.approx(row["bbox_std"], abs=0.006)
            assert (box["role"], box["class"]) == ("prediction", names[row["category_id"]])
            assert len(base64.b64decode(box["p"])) == 4 * 17
            assert len(item["bins"][box["bins"]]) == 17
    pixels = np.asarray(Image.open(files / "photos/0.png"))
    text = scripts_of(files / "pages/page.html", "picture")[0].split(",")[1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    np.testing.assert_allclose(shown.mean((0, 1)), pixels.mean((0, 1)), atol=3)
    assert np.corrcoef(shown.mean(2).flat, pixels.mean(2).flat)[0, 1] > 0.9


def test_the_first_images(files, capsys):
    assert predict.main(command(files, "--html-images", "3")) == 0
    expected = f"{files}/pages/page.html: the first 3 of 4 images; --html-images 4 shows all\n"
    assert capsys.readouterr().out == f"look at {expected}"
    assert len(items_of(files)) == 3
    assert "The first 3 of 4 images." in (files / "pages/page.html").read_text()


def test_the_names_of_a_json(files):
    images = [{"id": 9, "file_name": "1.png"}]
    categories = [{"id": i, "name": name} for i, name in ((5, "<cat>"), (3, "dog"), (8, "owl"))]
    (files / "val.json").write_text(json.dumps({"images": images, "categories": categories}))
    words = command(files, "--image-root", f"{files}/photos")
    words[words.index("--input") + 1] = f"{files}/val.json"
    assert predict.main(words) == 0
    rows = json.loads((files / "r.json").read_text())
    names = {category["id"]: category["name"] for category in categories}
    (item,) = items_of(files)
    assert [x["class"] for x in item["boxes"]] == [names[row["category_id"]] for row in rows]


@pytest.mark.parametrize("name, keys", [("GaussianDistance", {"stds"}), ("DiracDistance", set())])
def test_detectors_that_know_less(files, name, keys, caplog):
    """Where there are no standard deviations, one line says so, however many batches there are."""
    config = CONFIG + REPRESENTATIONS + OTHER_HEAD.format(name)
    (files / "config.py").write_text(config)
    cfg = load_config(files / "config.py")
    torch.save({"model": instantiate(cfg.model).state_dict()}, files / "weights.pth")
    assert predict.main(command(files)) == 0
    boxes = [box for item in items_of(files) for box in item["boxes"]]
    assert len(boxes) > 4
    assert {key for box in boxes for key in box} == {"role", "class", "bbox", "score"} | keys
    told = [x for x in caplog.messages if x.endswith("numbers: the results have no bbox_std")]
    assert len(told) == (0 if keys else 1)


def test_test_time_augmentation_has_no_distributions(files):
    augmentation = '{"enabled": True, "min_sizes": [48], "max_size": 64}'
    (files / "config.py").write_text(f"{CONFIG}\ntrain['test_augmentation'] = {augmentation}\n")
    assert predict.main(command(files)) == 0
    box = items_of(files)[0]["boxes"][0]
    assert "stds" in box and "p" not in box


def test_a_resume_writes_the_page(files, monkeypatch):
    assert predict.main(command(files)) == 0
    calm = (files / "pages/page.html").read_bytes()
    (files / "pages/page.html").unlink()
    add = Lines.add

    def killed(lines, file, records):
        if add(lines, file, records) or any(record["index"] == 1 for record in records):
            raise KeyboardInterrupt

    words = command(files, "--batch-size", "1")
    words[words.index("--output") + 1] = f"{files}/resumed.json"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Lines, "add", killed)
        predict.main(words)
    assert not (files / "pages/page.html").exists()
    assert predict.main(words) == 0
    assert (files / "pages/page.html").read_bytes() == calm


def test_an_image_that_cannot_be_read(files, capsys):
    good = (files / "photos/1.png").read_bytes()
    (files / "photos/1.png").write_bytes(b"none")
    with pytest.raises(SystemExit) as end:
        predict.main(command(files))
    assert end.value.code == 1 and "1.png" in capsys.readouterr().err
    assert [item["title"] for item in items_of(files)] == ["0.png", "2.png", "3.png"]
    (files / "photos/1.png").write_bytes(good)
    assert predict.main(command(files)) == 0  # goes on, and may replace its own page
    assert len(items_of(files)) == 4


def test_files_that_are_there(files):
    (files / "pages").mkdir()
    (files / "pages/page.html").write_text("mine")
    with pytest.raises(SystemExit, match=r"--html is '.*page.html', which is there; --overwrite"):
        predict.main(command(files))
    assert not (files / "r.json").exists() and (files / "pages/page.html").read_text() == "mine"
    assert predict.main(command(files, "--overwrite")) == 0
    assert len(items_of(files)) == 4
    words = command(files, "--overwrite")
    for name, message in (("pages", "a folder; expected"), ("page.txt", "expected a file, x.html")):
        with pytest.raises(SystemExit, match=rf"--html is '.*{name}'.*{message}"):
            predict.main([*words, "--html", f"{files}/{name}"])


def test_wrong_options(files, capsys):
    with pytest.raises(SystemExit):
        predict.main(command(files, "--html-images", "0"))
    assert "--html-images is 0; expected at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("stds", [False, True])
def test_onnx_files(files, stds):
    """They give no distributions. The page needs no PyTorch either."""
    outputs = ["boxes", "scores", "classes", "image_idxs", *(["stds"] if stds else [])]
    write_onnx(files / "model.onnx", make_card(stds=stds, outputs=outputs))
    words = ["--weights", f"{files}/model.onnx", "--input", f"{files}/photos", "--output"]
    words += [f"{files}/o.json", "--html", f"{files}/pages/page.html"]
    assert predict.main(words) == 0
    boxes = [box for item in items_of(files) for box in item["boxes"]]
    assert len(boxes) >= 4 and {box["class"] for box in boxes} <= {"cat", "dog", "owl"}
    assert all(("stds" in box) == stds and "p" not in box for box in boxes)
    page = (files / "pages/page.html").read_bytes()
    bare = packages(files / "bare", *NEEDED)
    code = "from gfocal.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = run(bare, code, "predict", *words, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert (files / "pages/page.html").read_bytes() == page
