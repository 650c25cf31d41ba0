import json
from collections.abc import Callable

import pytest

from gfocal.engine.prediction_lines import ImageFile, Lines, PredictionSettings

IMAGES = [ImageFile("a", "a.png"), ImageFile("b", "b.png")]
SETTINGS = PredictionSettings("w", "c", "i", 2, 0.0, False, (7, 4))


def record(index: int, score: float = 0.5) -> dict:
    detection = {"category_id": 7, "bbox": [0.0, 1.0, 2.0, 3.0], "score": score}
    return {"index": index, "height": 4, "width": 5, "detections": [detection]}


@pytest.fixture
def add(tmp_path) -> Callable[..., Lines]:
    """A function that adds records to the file of a process."""

    def add(rank: int, *records: dict, settings: PredictionSettings = SETTINGS) -> Lines:
        lines = Lines(str(tmp_path / "out.json"), settings)
        with lines.open(rank) as file:
            lines.add(file, list(records))
        return lines

    return add


def test_lines_of_several_processes_become_a_json(add, tmp_path):
    add(1, record(1))
    lines = add(0, record(0))
    assert lines.read() == {0, 1}
    assert lines.finish(IMAGES, [{"id": 7, "name": "x"}]) == []
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["image_id"] for row in rows] == ["a", "b"]
    table = json.loads((tmp_path / "out.images.json").read_text())
    assert table["images"][1] == {"id": "b", "file_name": "b.png", "height": 4, "width": 5}
    assert sorted(x.name for x in tmp_path.iterdir()) == ["out.images.json", "out.json"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_was_read_counts_more_than_an_earlier_error(add, tmp_path, order):
    add(order[0], {"index": 0, "error": "a.png: broken"}, record(1))
    lines = add(2)
    assert lines.read() == {1}
    assert lines.finish(IMAGES, None) == ["a.png: broken"]
    assert len(json.loads((tmp_path / "out.json").read_text())) == 1
    add(order[1], record(0))
    assert lines.read() == {0, 1}
    assert lines.finish(IMAGES, None) == []
    assert len(json.loads((tmp_path / "out.json").read_text())) == 2


@pytest.mark.parametrize("half", ["", '{"sett', '{"index": 1', '{"index": 1, "detections": []}'])
def test_a_half_written_line_is_no_line(add, tmp_path, half):
    lines = add(0, record(0)) if "sett" not in half else Lines(f"{tmp_path}/out.json", SETTINGS)
    part = tmp_path / "out.json.part0.jsonl"
    with open(part, "a") as file:
        file.write(half)
    done = {0} if "sett" not in half else set()
    assert lines.read() == done
    add(0, record(1))
    assert lines.read() == done | {1}
    assert part.read_text().count("settings") == 1


def test_other_settings_and_other_files_are_refused(add, tmp_path):
    add(0, record(0))
    part = tmp_path / "out.json.part0.jsonl"
    before = part.read_bytes()
    other = PredictionSettings("w2", "c", "i", 2, 0.3, False, (7, 4))
    with pytest.raises(ValueError, match="with other weights, confidence. Go on with the same"):
        Lines(f"{tmp_path}/out.json", other).read()
    assert part.read_bytes() == before
    for text in ("hello\n", "[]\n", "{}\n", "3\n"):
        part.write_text(text)
        with pytest.raises(ValueError, match="out.json.part0.jsonl is no file of a prediction"):
            Lines(f"{tmp_path}/out.json", SETTINGS).read()
    for text in (b"hello\n", b"[]\n", b'{"error": "x"}\n'):
        part.write_bytes(before + text)
        with pytest.raises(ValueError, match=f"a line that is no image's, at byte {len(before)}"):
            Lines(f"{tmp_path}/out.json", SETTINGS).read()
