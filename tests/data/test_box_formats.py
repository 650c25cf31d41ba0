"""Boxes of another format are named; right ones never are."""

import json
from pathlib import Path

import numpy as np
import pytest

from gfocal.data import read_coco_json
from gfocal.data.box_formats import box_suspicion
from tests.helpers.coco_files import valid_document, write_dataset

BCCD = Path(__file__).parents[2] / "../shared/data/bccd"  # beside the checkout


def _truth(number=60, seed=0, size=(96, 64)):
    """Boxes XYXY inside images of one size, some of them at a border."""
    rng = np.random.default_rng(seed)
    width, height = size
    w, h = rng.uniform(0.05, 0.5, (2, number)) * np.array([[width], [height]])
    x, y = rng.uniform(0, 1, (2, number)) * np.array([width - w, height - h])
    x[::7], y[::5] = 0, 0
    return np.stack([x, y, x + w, y + h], 1), np.tile(np.array(size, float), (number, 1))


def _written(truth, sizes, name):
    x0, y0, x1, y1 = truth.T
    w, h = x1 - x0, y1 - y0
    columns = {
        "XYWH": [x0, y0, w, h],
        "XYXY": [x0, y0, x1, y1],
        "CXCYWH": [x0 + w / 2, y0 + h / 2, w, h],
        "YXYX": [y0, x0, y1, x1],
        "YXHW": [y0, x0, h, w],
    }
    return np.stack(columns[name], 1)


@pytest.mark.parametrize("declared", ["XYWH", "XYXY"])
@pytest.mark.parametrize("written", ["XYWH", "XYXY", "CXCYWH", "YXYX", "YXHW"])
def test_the_format_is_named(written, declared):
    truth, sizes = _truth()
    found = box_suspicion(_written(truth, sizes, written), sizes, declared)
    if written == declared:
        assert found is None
    else:
        assert (
            found.text.startswith(f"the boxes look like {written} ") and "of 60 boxes" in found.text
        )
        assert found.is_error


def test_exchanged_width_and_height():
    truth, sizes = _truth()
    found = box_suspicion(_written(truth, sizes, "XYWH"), sizes[:, ::-1], "XYWH")
    assert "or width and height of the images exchanged" in found.text


def test_relative_boxes():
    truth, sizes = _truth()
    relative = _written(truth, sizes, "XYWH") / np.concatenate([sizes, sizes], 1)
    found = box_suspicion(relative, sizes, "XYWH")
    assert found.is_error and "between 0 and 1" in found.text
    percent, sizes = _truth(200, size=(100, 100))
    found = box_suspicion(_written(percent, sizes, "XYWH"), sizes * 6.4, "XYWH")
    assert not found.is_error and "percent" in found.text


def test_boxes_of_images_of_another_size():
    truth, sizes = _truth()
    found = box_suspicion(_written(truth * 2, sizes, "XYWH"), sizes, "XYWH")
    assert not found.is_error and "images of another size?" in found.text


@pytest.mark.parametrize("declared", ["XYWH", "XYXY"])
def test_right_boxes_are_never_suspected(declared):
    for seed in range(20):
        truth, sizes = _truth(seed=seed)
        truth[:, 2:] += np.random.default_rng(seed).uniform(-1, 1, (60, 2))  # a pixel beyond
        assert box_suspicion(_written(truth, sizes, declared), sizes, declared) is None
    # One object that fills each image: XYWH and XYXY both fit.
    full = np.concatenate([np.ones_like(sizes), sizes - 2], 1)
    assert box_suspicion(full, sizes, declared) is None
    # Objects guessed beyond the border, at all sides.
    truth[:6, :2] -= 20
    truth[6:12, 2:] = sizes[6:12] + 20
    assert box_suspicion(_written(truth, sizes, declared), sizes, declared) is None


@pytest.mark.parametrize("declared, other", [("XYWH", "XYXY"), ("XYXY", "XYWH")])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_dataset_of_two_formats(declared, other, share):
    truth, sizes = _truth(200)
    boxes = _written(truth, sizes, declared)
    few = int(share * 200)
    boxes[:few] = _written(truth[:few], sizes[:few], other)
    found = box_suspicion(boxes, sizes, declared)
    assert found.text.startswith(f"some of the boxes look like {other} ") and not found.is_error


@pytest.mark.parametrize("declared", ["XYWH", "XYXY"])
@pytest.mark.parametrize("side", [0, 1, 2, 3])
def test_objects_guessed_beyond_one_border_are_no_other_format(declared, side):
    for seed in range(10):
        truth, sizes = _truth(seed=seed)
        beyond = np.random.default_rng(seed).uniform(3, 40, 15)
        truth[:15, side] = -beyond if side < 2 else sizes[:15, side - 2] + beyond
        assert box_suspicion(_written(truth, sizes, declared), sizes, declared) is None


def test_few_boxes_are_a_warning():
    truth, sizes = _truth(8)
    boxes = _written(truth + 40, sizes, "XYXY")
    found = box_suspicion(boxes, sizes * 3, "XYWH")
    assert found is None or not found.is_error
    assert box_suspicion(boxes[:0], sizes[:0], "XYWH") is None


def test_a_json_of_another_format_is_refused_even_with_drop(tmp_path):
    document = valid_document()
    truth, sizes = _truth(24, size=(64, 48))
    document["annotations"] = [
        {"id": i, "image_id": 7, "category_id": 1, "bbox": box}
        for i, box in enumerate(_written(truth, sizes, "XYXY").tolist())
    ]
    paths = write_dataset(tmp_path, document)
    for on_invalid in ("error", "drop"):
        with pytest.raises(ValueError, match=r"look like XYXY \(x0, y0.*of 24 boxes"):
            read_coco_json(*paths, on_invalid)
    with pytest.raises(ValueError, match="data.check=False"):
        read_coco_json(*paths)
    assert read_coco_json(*paths, "drop", check=False).annotations


@pytest.mark.skipif(not BCCD.exists(), reason="a real dataset")
def test_a_real_dataset():
    for split in ("train", "val", "test"):
        data = read_coco_json(str(BCCD / f"{split}.json"), str(BCCD / "images"))
        found = json.loads((BCCD / f"{split}.json").read_text())
        assert len(data.annotations) == len(found["annotations"])
