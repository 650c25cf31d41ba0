import gc
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gfocal.cli import predict
from gfocal.data.sides import unpack_sides
from gfocal.engine import Predictor, load_config
from gfocal.engine.prediction import ImageFile, PredictionSettings, predict_files
from gfocal.modeling.uncertainty import Calibration
from gfocal.weights.description import Description
from tests.helpers.tiny import make_gfl

ROOT = Path(__file__).parents[2]
CONFIG = """
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from tests.helpers.tiny import make_gfl
from tests.helpers.toy_config import parts

data, dataloader, train = parts()
model = L(make_gfl)(test_score_thresh=0.0, max_detections_per_image=5, input_format="RGB")
dataloader["test"].dataset.names = "predicted"
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> Path:
    """A folder with config.py, weights.pth and photos/ of two sizes."""
    monkeypatch.syspath_prepend(str(ROOT))
    (tmp_path / "config.py").write_text(CONFIG)
    torch.manual_seed(0)
    torch.save({"model": make_gfl().state_dict()}, tmp_path / "weights.pth")
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(7):
        shape = (48, 120, 3) if index % 3 else (64, 48, 3)
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
    assert table["images"][0]["width"] == 48 and table["images"][1]["width"] == 120
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


def test_results_do_not_depend_on_the_batch_size(files):
    """A batch of different sizes would change them: convolutions see the padding."""
    predictor = Predictor(load_config(files / "config.py"), files / "weights.pth")
    for parameter in predictor.model.head.parameters():
        parameter.data *= 20 if parameter.ndim > 1 else 1
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, width, 3), dtype=np.uint8) for width in (48, 120)]
    inputs = [predictor.preprocess(image) for image in images]
    with torch.no_grad():
        mixed = [x["instances"].scores for x in predictor.model(inputs)]
    alone = [predictor(image)["instances"].scores for image in images]
    assert not all(torch.allclose(a, b, rtol=1e-3, atol=0) for a, b in zip(mixed, alone))
    grouped = [x["instances"].scores for x in predictor(images)]
    assert all(torch.equal(a, b) for a, b in zip(grouped, alone))

    found = []
    for size in ("1", "2", "8"):
        words = ["--input", f"{files}/photos", "--batch-size", size]
        assert predict.main(command(files, *words, output=f"{size}.json")) == 0
        found.append(results(files, f"{size}.json"))
    for rows in found[1:]:
        for row, expected in zip(rows, found[0], strict=True):
            assert row["image_id"] == expected["image_id"]
            assert row["category_id"] == expected["category_id"]
            np.testing.assert_allclose(row["bbox"], expected["bbox"], atol=1e-3)


def test_other_files_of_images(files):
    """16 bits, palettes, CMYK, alpha, GIF, an EXIF orientation, a name that is not ASCII."""
    folder = files / "odd"
    folder.mkdir()
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    image.save(folder / "bild \u00e4\u4e2d.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[274] = 6
    image.save(folder / "exif.jpg", exif=exif)
    image.convert("P").save(folder / "gif.gif")
    image.convert("RGBA").save(folder / "rgba.png")
    Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)).save(
        folder / "sixteen.png"
    )
    assert predict.main(command(files, "--input", f"{folder}")) == 0
    predictor = Predictor(load_config(files / "config.py"), files / "weights.pth")
    rows = results(files)
    for entry in results(files, "out/results.images.json")["images"]:
        expected = predictor(entry["file_name"])["instances"]
        assert expected.image_size == (entry["height"], entry["width"])
        assert ("exif" in entry["file_name"]) == (entry["height"] == 64)
        found = [row["score"] for row in rows if row["image_id"] == entry["id"]]
        np.testing.assert_allclose(found, expected.scores, rtol=1e-4)


@pytest.mark.parametrize("damage", [b"", b"no image", None, "truncated", "bomb", "float"])
def test_images_that_cannot_be_read(files, damage, capsys, monkeypatch):
    assert predict.main(command(files, output="all.json")) == 0
    path = files / "photos/4.png"
    good = path.read_bytes()
    if damage is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(damage if isinstance(damage, bytes) else good[:-2000])
    if damage == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 65)
        Image.new("RGB", (480, 64)).save(path)
    if damage == "float":
        Image.new("F", (64, 48)).save(path, "TIFF")
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


def test_an_output_that_is_a_folder(files):
    with pytest.raises(SystemExit, match="a folder; expected a file"):
        predict.main([*command(files, output="photos"), "--overwrite"])
    with pytest.raises(SystemExit, match=r"x\.txt'; expected a file, x\.json"):
        predict.main(command(files, output="x.txt"))  # its x.images.json is that of x.json too


def test_a_json_of_no_images_and_of_files_that_are_not_there(files):
    path = files / "val.json"
    path.write_text(json.dumps({"images": []}))
    assert predict.main(command(files, "--input", str(path), output="none.json")) == 0
    assert results(files, "none.json") == []
    names = ["0.png", "missing.png", "sub/0.png"]
    images = [{"id": f"id {name}", "file_name": name} for name in names]
    path.write_text(json.dumps({"images": images}))
    words = ["--input", str(path), "--image-root", f"{files}/photos"]
    with pytest.raises(SystemExit) as end:
        predict.main(command(files, *words))
    assert end.value.code == 1
    assert {row["image_id"] for row in results(files)} == {"id 0.png"}
    with pytest.raises(SystemExit, match="3 images, and none of them is in .*--image-root"):
        predict.main(command(files, "--input", str(path), output="other.json"))


def test_wrong_options(capsys):
    for words in (["--batch-size", "0"], ["--workers", "-1"], ["--confidence", "1.5"]):
        with pytest.raises(SystemExit):
            predict.main(["--weights", "w", "--input", "a", "--output", "b", *words])
        assert words[0] in capsys.readouterr().err


def test_every_detection_has_the_standard_deviations_of_its_sides(files):
    assert predict.main(command(files)) == 0
    predictor = Predictor(load_config(files / "config.py"), files / "weights.pth")
    (image,) = (x for x in results(files, "out/results.images.json")["images"] if x["id"] == 2)
    expected = predictor(image["file_name"])["instances"].pred_box_stds
    found = [x["bbox_std"] for x in results(files) if x["image_id"] == 2]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (np.array(found) > 0).all()


def calibrated_weights(files: Path) -> Path:
    weights = torch.load(files / "weights.pth", weights_only=True)
    calibration = Calibration(0.5, (0.0, 0.5, 1.0), (0.0, 0.1, 0.9)).plain()
    weights["gfocal"] = {**Description().plain(), "calibration": calibration}
    torch.save(weights, files / "calibrated.pth")
    return files / "calibrated.pth"


def test_calibrated(files):
    weights = calibrated_weights(files)
    words = command(files, "--input", f"{files}/photos")
    words[words.index("--weights") + 1] = str(weights)
    assert predict.main(words) == 0
    plain = results(files)
    assert predict.main([*words, "--calibrated", "--overwrite"]) == 0
    calibrated = results(files)
    assert [x["bbox"] for x in plain] == [x["bbox"] for x in calibrated]
    for a, b in zip(plain, calibrated):
        np.testing.assert_allclose(b["bbox_std"], np.multiply(0.5, a["bbox_std"]), rtol=1e-5)
        s = a["score"]
        assert b["score"] == pytest.approx(0.2 * s if s < 0.5 else 0.1 + 1.6 * (s - 0.5), rel=1e-4)


def test_calibrated_weights_without_a_calibration(files, capsys):
    with pytest.raises(SystemExit, match="weights.pth carries no calibration: gfocal calibrate"):
        predict.main(command(files, "--input", f"{files}/photos", "--calibrated"))


def test_each_image_and_its_distributions(files):
    """What pages are made of: every image in order, with the sides, which the json has not."""
    predictor = Predictor(
        load_config(files / "config.py"), files / "weights.pth", distributions=True
    )
    images = [ImageFile(i, str(files / f"photos/{i}.png")) for i in (3, 1, 2)]
    settings = PredictionSettings("w", "c", "i", 2, 0.0, False, (5, 6, 7), distributions=True)
    seen, frozen = [], []
    problems = predict_files(
        predictor,
        images,
        str(files / "r.json"),
        settings,
        num_workers=0,
        each=lambda image, record: (
            seen.append((image, record)),
            frozen.append(gc.get_freeze_count()),
        ),
    )
    assert min(frozen) > 0 and gc.get_freeze_count() == 0  # collected again afterwards
    assert problems == [] and [image for image, _ in seen] == images
    rows = results(files, "r.json")
    assert len(rows) == sum(len(record["detections"]) for _, record in seen) > 0
    assert not any("sides" in row for row in rows)
    image, record = seen[0]
    found = predictor(image.path)["instances"]
    assert record["height"] == found.image_size[0] and len(record["bins"]) == 17
    for i, detection in enumerate(record["detections"]):
        sides = unpack_sides(detection["sides"], record["bins"])
        np.testing.assert_allclose(sides.bin_edges, found.bin_edges[i], atol=0.02)
        scaled = found.pred_box_distributions[i] / found.pred_box_distributions[i].amax(-1, True)
        np.testing.assert_allclose(sides.probabilities, scaled, atol=3e-3)
