"""What the error about invalid entries advises."""

import pytest

from gfocal.data import read_coco_json
from gfocal.data.defects import Defects
from tests.helpers.coco_files import valid_document, write_dataset


def _message(number, of):
    defects = Defects("a.json")
    defects.num_images, defects.num_annotations = 10, of
    for index in range(number):
        defects.add("annotations", "degenerate", f"annotation {index}")
    with pytest.raises(ValueError) as error:
        defects.finish("error")
    return str(error.value)


def test_leaving_out_a_few_is_advised():
    assert _message(10, of=100).endswith("leaves them out")
    assert _message(1, of=4).endswith("leaves them out")


def test_leaving_out_much_is_not():
    text = _message(11, of=100)
    assert "leaves them out" not in text and "would leave out 11%" in text
    assert "would leave out 100%" in _message(6, of=6)


def test_a_file_of_two_images(tmp_path, caplog):
    document = valid_document()
    document["images"].append({**document["images"][1], "id": 77, "file_name": "./sub/a.jpg"})
    read_coco_json(*write_dataset(tmp_path, document))
    assert "1 files are listed under several image ids, e.g. sub/a.jpg" in caplog.text


def test_a_dataset_that_is_read_again_warns_once(tmp_path, caplog):
    document = valid_document()
    del document["annotations"][0]["bbox"]
    for _ in range(3):
        read_coco_json(*write_dataset(tmp_path, document), on_invalid="drop")
    assert len([x for x in caplog.records if ": dropped 1 of 4" in x.message]) == 1
