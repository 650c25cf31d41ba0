"""Images and annotations of a COCO json: what is wrong is named, or dropped and counted."""

import logging

import pytest
from detectron2.utils.file_io import PathManager

from gfocal.data import read_coco_json
from tests.helpers.coco_files import valid_document, write_dataset


def _set(kind, index, **values):
    def change(document):
        document[kind][index].update(values)

    return change


INVALID = [
    (_set("images", 1, file_name="gone.jpg"), "image 3 (gone.jpg): no such file in /"),
    (_set("images", 1, file_name="gone/a.jpg"), "image 3 (gone/a.jpg): no such file in /"),
    (_set("images", 1, id=7), "image 7 (sub/a.jpg): b.jpg has the same id"),
    (_set("images", 1, width=0), "image 3 (sub/a.jpg): width, height are (0, 60)"),
    (_set("images", 1, width=10**400), "image 3 (sub/a.jpg): width, height are (100", "or finite"),
    (_set("images", 1, width=float("inf")), "image 3 (sub/a.jpg): width, height are (inf, 60)"),
    (
        _set("annotations", 1, image_id=8),
        "annotation 2 of image 8 (not in the json)",
        "unknown image",
    ),
    (_set("annotations", 1, category_id=2), "annotation 2 of image 7 (b.jpg)", "category 2"),
    (_set("annotations", 1, category_id=2), "with an unknown category"),
    (_set("annotations", 1, bbox=[4, 8, 0, 9]), "annotation 2 of image 7 (b.jpg)", "degenerate"),
    (_set("annotations", 1, bbox=[4, 8, 9, -1]), "bbox [4, 8, 9, -1]", "degenerate"),
    (_set("annotations", 1, bbox=[4, float("nan"), 9, 9]), "annotation 2 of", "non-finite"),
    (_set("annotations", 1, bbox=[4, 8, float("inf"), 9]), "annotation 2 of", "non-finite"),
    (_set("annotations", 1, bbox=[4, 8, 9]), "annotation 2 of", "bbox [4, 8, 9]", "non-finite"),
    (_set("annotations", 1, bbox=[4, 8, None, 9]), "annotation 2 of", "non-finite"),
    (_set("annotations", 1, bbox="box"), "annotation 2 of", "non-finite"),
    (_set("annotations", 1, bbox=[64, 8, 9, 9]), "annotation 2 of", "outside the image"),
    (_set("annotations", 1, bbox=[4, 8, 10**400, 9]), "annotation 2 of", "non-finite"),
    (_set("annotations", 1, area=float("nan")), "annotation 2 of", "with an area negative or"),
    (_set("annotations", 1, area=float("inf")), "annotation 2 of", "with an area negative or"),
    (_set("annotations", 1, area=-1), "annotation 2 of", "with an area negative or not finite"),
    (_set("annotations", 1, area=10**400), "annotation 2 of", "with an area negative or not fin"),
    (_set("annotations", 1, iscrowd=float("nan")), "annotation 2 of", "with an iscrowd not 0 or 1"),
    (_set("annotations", 1, iscrowd=0.5), "annotation 2 of", "with an iscrowd not 0 or 1"),
    (_set("annotations", 1, iscrowd=2), "annotation 2 of", "with an iscrowd not 0 or 1"),
    (_set("annotations", 1, bbox=[-9, 8, 9, 9]), "annotation 2 of", "outside the image"),
    (_set("annotations", 1, bbox=[4, 48, 9, 9]), "annotation 2 of", "outside the image"),
    (_set("annotations", 1, bbox=[4, -9, 9, 9]), "annotation 2 of", "outside the image"),
    (_set("annotations", 1, ignore=1), "annotation 2 of image 7 (b.jpg)", "flagged ignore"),
]


@pytest.mark.parametrize("case", INVALID, ids=lambda case: " ".join(case[1:]))
def test_invalid_entries_are_errors_or_dropped(tmp_path, caplog, case):
    change, *expected = case
    document = valid_document()
    change(document)
    paths = write_dataset(tmp_path, document)
    kind = FileNotFoundError if "no such file" in expected[0] else ValueError
    with pytest.raises(kind) as error:
        read_coco_json(*paths)
    for part in (paths[0], *expected):
        assert part in str(error.value)

    with caplog.at_level(logging.WARNING, "gfocal.data"):
        data = read_coco_json(*paths, on_invalid="drop")
    (record,) = caplog.records
    assert f"{paths[0]}: dropped 1 of " in record.message
    if "image 3" in expected[0] or "sub/a.jpg" in expected[0]:
        assert [image["id"] for image in data.images] == [7, 9]
        assert [a["id"] for a in data.annotations if a["image_id"] == 3] == []
    else:
        assert [a["bbox"] for a in data.annotations if a["image_id"] == 7] == [[4, 5, 20.5, 30]]
        assert len(data.images) == 3 and len(data.annotations) == 3


def test_drops_are_counted_by_reason(tmp_path, caplog):
    document = valid_document()
    document["images"][1]["file_name"] = "gone.jpg"  # takes annotations 5 and 6 with it
    document["annotations"][0]["bbox"] = [0, 0, 0, 5]
    paths = write_dataset(tmp_path, document)
    data = read_coco_json(*paths, on_invalid="drop")
    (record,) = caplog.records
    assert record.message == (
        f"{paths[0]}: dropped 1 of 3 images (1 without a file) and 3 of 4 annotations "
        "(2 of a left out image, 1 with a degenerate box)"
    )
    assert [image["id"] for image in data.images] == [7, 9]
    assert [a["id"] for a in data.annotations] == [2]


def test_many_errors_are_summed_up(tmp_path):
    document = valid_document()
    document["annotations"] = [
        {"id": i, "image_id": 7, "category_id": 1, "bbox": [1, 1, 0, 0]} for i in range(100)
    ]
    with pytest.raises(ValueError) as error:
        read_coco_json(*write_dataset(tmp_path, document))
    lines = str(error.value).splitlines()
    assert "100 of 100 annotations (100 with a degenerate box)" in lines[0]
    assert "annotation 0 of image 7" in lines[1]
    assert lines[-2] == "  ... and 95 more"
    assert lines[-1].startswith('on_invalid="drop" would leave out 100%')


def test_a_box_that_reaches_out_of_its_image_is_valid(dataset):
    data = read_coco_json(*dataset)
    assert data.annotations[3]["bbox"] == [30, 30, 40, 20]  # 60 px wide: reaches out by 10


def test_each_folder_is_looked_into_once(tmp_path, monkeypatch):
    """Not once for each image: COCO has 118,000 in one folder."""
    document = valid_document()
    document["images"] += [{**document["images"][0], "id": 100 + i} for i in range(50)]
    paths = write_dataset(tmp_path, document)
    looked_into = []
    original = PathManager.ls
    monkeypatch.setattr(PathManager, "ls", lambda p: looked_into.append(p) or original(p))
    read_coco_json(*paths)
    assert sorted(looked_into) == [f"{paths[1]}/", f"{paths[1]}/sub"]
