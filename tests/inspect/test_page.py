"""What a page's file holds. test_page_in_browser.py looks at it."""

import base64
import io
import json
import re
import weakref

import numpy as np
import pytest
from PIL import Image

from gfocal.inspect.page import PageFinding, fitted, write_page
from tests.helpers.pages import (
    NASTY,
    box,
    finding,
    parsed,
    peaked,
    picture,
    predictions,
    scripts_of,
)


def items_of(path):
    return [json.loads(text) for text in scripts_of(path, "item")]


def test_what_an_item_is_on_the_page(tmp_path):
    assert write_page(tmp_path / "a.html", [finding(7, score=0.25)], title="T", name="mine") == 1
    (item,) = items_of(tmp_path / "a.html")
    assert (item["title"], item["width"], item["height"]) == ("photo 7.jpg", 120, 80)
    assert (item["origin"], item["scale"]) == ([100, 50], 2)
    assert item["finding"] == {
        "id": 7, "kind": "bad_side", "score": 0.25, "class": "disk", "text": "Sentence 7.",
        "sides": ["left"],
    }  # fmt: skip
    annotation, suggestion, prediction = item["boxes"]
    assert annotation == {"role": "annotation", "class": "disk", "bbox": [107, 60, 140, 80]}
    assert suggestion["role"] == "suggestion"
    # 0.2, 0.6, 0.2 -> 85, 255, 85 in the middle of 9 bins; the bins go outward by 2 px each.
    side = [0, 0, 0, 85, 255, 85, 0, 0, 0]
    assert list(base64.b64decode(prediction.pop("p"))) == 4 * side
    assert prediction == {
        "role": "prediction", "class": "disk", "bbox": [115, 60, 140, 80], "score": 0.9,
        "stds": [2, 2, 2, 2], "bins": 0,
        "ends": [[123, 107], [68, 52], [132, 148], [72, 88]],
    }  # fmt: skip
    assert item["bins"] == [[0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1]]
    about = json.loads(scripts_of(tmp_path / "a.html", "about")[0])
    assert (about["title"], about["name"]) == ("T", "mine.json")


def test_bins_of_other_distances(tmp_path):
    """They are stored once for all boxes that have them, whatever float32 made of them."""
    bins = np.array([0, 1, 3, 7], np.float32)
    first = (np.float32([10.1, 20.7, 100.3, 90.9]) + 0.3 * bins[:, None]).T
    second = (np.float32([33.3, 55.5, 77.7, 99.9]) + 7.7 * bins[:, None]).T
    probabilities = np.full((4, 4), 0.25)
    sides = [{"probabilities": probabilities, "bin_edges": edges} for edges in (first, second)]
    boxes = [box((10, 20, 100, 90), **x) for x in (*sides, peaked((10, 20, 100, 90)))]
    write_page(tmp_path / "a.html", [predictions(0, boxes)], title="T")
    (item,) = items_of(tmp_path / "a.html")
    assert [x["bins"] for x in item["boxes"]] == [0, 0, 1]
    np.testing.assert_allclose(item["bins"][0], bins / 7, atol=1e-4)


def test_pictures_are_jpeg(tmp_path):
    image = picture(90, 140)
    item = predictions(0, [])._replace(image=image)
    write_page(tmp_path / "a.html", [item], title="T")
    (text,) = scripts_of(tmp_path / "a.html", "picture")
    head, data = text.split(",")
    assert head == "data:image/jpeg;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert shown.shape == image.shape
    assert np.abs(shown.astype(int) - image).mean() < 6


def test_text_of_anybody_stays_text(tmp_path):
    item = finding(1, kind=NASTY, name=NASTY)
    item = item._replace(title=NASTY, finding=item.finding._replace(text=NASTY))
    plain, nasty = tmp_path / "plain.html", tmp_path / "nasty.html"
    write_page(plain, [finding(1)], title="T", note="N")
    write_page(nasty, [item], title=NASTY, note=NASTY, name=NASTY)
    assert [x for x, _ in parsed(nasty).tags] == [x for x, _ in parsed(plain).tags]
    (read,) = items_of(nasty)
    assert read["title"] == read["finding"]["kind"] == read["boxes"][0]["class"] == NASTY


def test_nothing_is_loaded_from_anywhere(tmp_path):
    write_page(tmp_path / "a.html", [finding(1)], title="T")
    text = (tmp_path / "a.html").read_text()
    assert set(re.findall(r"\w+://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|<link(?! rel=\"icon\" href=\"data:)", text)
    for tag, attributes in parsed(tmp_path / "a.html").tags:
        assert not {"src", "action"} & attributes.keys()
        assert tag == "link" or "href" not in attributes


def test_the_key_of_decisions_is_that_of_the_findings(tmp_path):
    def key(*items, **options):
        write_page(tmp_path / "k.html", items, **{"title": "T", **options})
        return json.loads(scripts_of(tmp_path / "k.html", "about")[0])["key"]

    assert key(finding(1)) == key(finding(1))
    others = [key(finding(1)), key(finding(2)), key(finding(1), finding(2))]
    assert len({*others, key(finding(1), title="U"), key(finding(1, score=0.4))}) == 5


def test_one_item_at_a_time_is_in_memory(tmp_path):
    alive = []

    def items():
        for number in range(5):
            item = finding(number)
            alive.append(weakref.ref(item.image))
            yield item
            del item

    class Checked:
        def __init__(self):
            self.source = items()

        def __iter__(self):
            return self

        def __next__(self):
            item = next(self.source)
            assert sum(ref() is not None for ref in alive) <= 2  # it, and the one before
            return item

    assert write_page(tmp_path / "a.html", Checked(), title="T") == 5


def test_500_findings_are_less_than_25_mb(tmp_path):
    items = (finding(number, size=(320, 320)) for number in range(500))
    assert write_page(tmp_path / "a.html", items, title="T") == 500
    assert (tmp_path / "a.html").stat().st_size < 25e6


@pytest.mark.parametrize(
    "size, longest, expected, scale",
    [
        ((100, 50), 640, (100, 50), 1.0),
        ((1280, 320), 640, (640, 160), 0.5),
        ((300, 1000), 250, (75, 250), 0.25),
        ((1, 5000), 500, (1, 500), 0.1),
    ],
)
def test_fitted(size, longest, expected, scale):
    image = np.full((*size, 3), 77, np.uint8)
    small, factor = fitted(image, longest)
    assert small.shape == (*expected, 3) and factor == scale
    assert (small == 77).all()


GOOD = (10, 10, 20, 20)
WRONG_BOXES = {
    "role is 'truth'; expected one of prediction, annotation": box(GOOD, "truth"),
    r"bbox is \(1, 2, 3\); expected 4 finite numbers": box((1, 2, 3)),
    "bbox is .*nan.*; expected 4 finite": box((1, 2, float("nan"), 4)),
    r"bbox is \[20.0, 10.0, 10.0, 20.0\]; expected x0, y0, x1, y1": box((20, 10, 10, 20)),
    "score is 1.5; expected a number from 0 to 1": box(GOOD, score=1.5),
    "score is nan": box(GOOD, score=float("nan")),
    "stds is .*; expected 4 finite": box(GOOD, stds=[1, 2]),
    "stds are .*; expected none below 0": box(GOOD, stds=[1, -2, 1, 1]),
    "expected both probabilities and bin_edges": box(GOOD, probabilities=np.ones((4, 5))),
    r"probabilities \(4, 5\) and bin_edges \(4, 6\)": box(
        GOOD, probabilities=np.ones((4, 5)), bin_edges=np.ones((4, 6))
    ),
    "are not finite": box(GOOD, **{**peaked(GOOD), "probabilities": np.full((4, 9), np.nan)}),
    "those of a side are all 0": box(GOOD, **{**peaked(GOOD), "probabilities": np.zeros((4, 9))}),
    "are the same place": box(GOOD, **{**peaked(GOOD), "bin_edges": np.ones((4, 9))}),
}


@pytest.mark.parametrize("message", WRONG_BOXES)
def test_wrong_boxes_are_named(tmp_path, message):
    item = predictions(3, [box(GOOD), WRONG_BOXES[message]])
    with pytest.raises(ValueError, match=rf"photo 3.jpg, box 1: .*{message}"):
        write_page(tmp_path / "a.html", [item], title="T")


@pytest.mark.parametrize(
    "items, error, message",
    [
        ([finding(1), finding(1)], ValueError, "photo 1.jpg: two findings have the id 1"),
        ([finding(1), predictions(2, [])], ValueError, "photo 2.jpg has no finding, unlike"),
        ([predictions(2, []), finding(1)], ValueError, "photo 1.jpg has a finding, unlike"),
        ([finding(1, sides=("up",))], ValueError, "finding 1 has the sides .'up'.; expected left,"),
        ([finding(1, score=2.0)], ValueError, "photo 1.jpg: score is 2.0"),
        ([finding(1)._replace(scale=0)], ValueError, "scale is 0; expected a positive number"),
        ([finding(1)._replace(origin=(1,))], ValueError, "origin is .*; expected 2 finite"),
        ([finding(1)._replace(image=[[1]])], TypeError, "photo 1.jpg: expected a uint8 .*got list"),
        (
            [finding(1)._replace(image=np.zeros((5, 5, 3)))],
            TypeError,
            "expected a uint8 RGB picture .*, got float64",
        ),
        ([finding(1)._replace(image=picture()[..., 0])], ValueError, r"got shape \(80, 120\)"),
    ],
)
def test_what_is_wrong_leaves_the_old_page(tmp_path, items, error, message):
    (tmp_path / "a.html").write_text("old")
    with pytest.raises(error, match=message):
        write_page(tmp_path / "a.html", items, title="T")
    assert [x.name for x in tmp_path.iterdir()] == ["a.html"]
    assert (tmp_path / "a.html").read_text() == "old"


def test_numbers_of_numpy(tmp_path):
    item = finding(1)
    told = PageFinding(np.int64(3), "missing", np.float32(0.25), "disk", "It is.")
    boxes = [x._replace(bbox=np.float32(x.bbox)) for x in item.boxes]
    write_page(tmp_path / "a.html", [item._replace(finding=told, boxes=boxes)], title="T")
    (read,) = items_of(tmp_path / "a.html")
    assert read["finding"]["id"] == 3 and read["finding"]["score"] == 0.25
