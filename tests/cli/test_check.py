"""gfocal.cli.check: one table of what is wrong with the datasets of a config."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from gfocal import model_zoo
from gfocal.cli import check as tool
from tests.helpers.coco_files import register, valid_document, write_dataset

CONFIG = "quick_start/custom_coco.py"


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path, valid_document())


def _check(capsys, *words):
    status = tool.main(["--config-file", model_zoo.get_config_file(CONFIG), *words])
    return status, capsys.readouterr().out


def test_right_datasets(dataset, capsys):
    json_file, folder = dataset
    status, out = _check(capsys, f"data.train_json={json_file}", f"data.train_images={folder}")
    assert status == 0
    assert f"{json_file}" in out and "3 images, 4 annotations" in out
    assert "1 datasets looked at, 0 with errors" in out


def test_all_that_is_wrong_is_in_one_table(tmp_path, capsys):
    document = valid_document()
    del document["annotations"][0]["bbox"]
    document["annotations"][1]["category_id"] = "18"
    train, folder = write_dataset(tmp_path, document)
    (tmp_path / "images" / "c.jpg").write_bytes(b"")
    status, out = _check(
        capsys,
        f"data.train_json={train}",
        f"data.val_json={tmp_path}/none.json",
        f"data.train_images={folder}",
        f"data.val_images={folder}",
    )
    assert status == 1
    for part in ("unreadable", "image 9 (c.jpg)", "without bbox", "warning", "no COCO json"):
        assert part in out
    assert "drop would leave out 1 of 3 images (1 unreadable) and 1 of 4 annotations" in out
    assert "2 datasets looked at, 2 with errors" in out


def test_what_a_training_would_drop_or_not_look_at_is_no_error(tmp_path, capsys):
    document = valid_document()
    del document["annotations"][0]["bbox"]
    json_file, folder = write_dataset(tmp_path, document)
    words = [f"data.train_json={json_file}", f"data.train_images={folder}", "data.on_invalid=drop"]
    status, out = _check(capsys, *words)
    assert status == 0 and "0 with errors" in out
    assert "on_invalid=drop leaves out 1 of 4 annotations (1 without bbox)" in out
    for name in ("b.jpg", "c.jpg", "sub/a.jpg"):
        (tmp_path / "images" / name).write_bytes(b"")
    status, out = _check(capsys, *words)
    assert status == 1 and "no usable image" in out
    status, out = _check(capsys, *words, "data.check=False")
    assert status == 0


def test_a_yacs_config_and_a_dataset_of_ones_own(dataset, capsys, tmp_path):
    dicts = DatasetCatalog.get(register(dataset))
    dicts[0]["annotations"][0]["category_id"] = 8
    DatasetCatalog.register("own", lambda: dicts)
    try:
        MetadataCatalog.get("own").thing_classes = ["person", "dog", "toothbrush"]
        path = model_zoo.get_config_file("COCO-Detection/gfl_R_50_FPN_1x.yaml")
        datasets = ["DATASETS.TRAIN", "('own',)", "DATASETS.TEST", "('mine',)"]
        assert tool.main(["--config-file", path, *datasets]) == 1
        out = capsys.readouterr().out
        assert "dataset 'own'" in out and "outside 0..2" in out
        assert "on_invalid" not in out  # nothing can leave them out
        assert "2 datasets looked at, 1 with errors" in out
    finally:
        DatasetCatalog.remove("own")
        MetadataCatalog.remove("own")


def test_other_kinds_of_pixels_are_a_note(dataset, tmp_path, capsys):
    Image.new("L", (64, 48)).save(tmp_path / "images" / "b.jpg")
    words = [f"data.train_json={dataset[0]}", f"data.train_images={dataset[1]}"]
    status, out = _check(capsys, *words)
    assert status == 0 and "other pixels: 1 L" in out


def test_mistakes(capsys):
    with pytest.raises(SystemExit, match="error: .*unknown key 'data.trian_json'"):
        _check(capsys, "data.trian_json=x")
    with pytest.raises(SystemExit):
        tool.parse_args([])
