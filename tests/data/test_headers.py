"""What the header of an image says, for files whole and broken; and how it is remembered."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from gfocal.data import headers, read_coco_json
from gfocal.data.headers import Header, read_header, read_headers
from tests.helpers.coco_files import valid_document, write_dataset


def _image(path, mode="RGB", size=(64, 48), **options):
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return str(path)


def _oriented(path, orientation, size=(64, 48)):
    exif = Image.Exif()
    exif[274] = orientation
    return _image(path, size=size, exif=exif)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.tif", "a.webp", "a.gif"])
def test_whole_files(tmp_path, name):
    header = read_header(_image(tmp_path / name))
    assert header[:3] == (64, 48, 1) and header.defect == ""


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_is_cut_off(tmp_path, name, share):
    path = tmp_path / name
    _image(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "cut off" in read_header(str(path)).defect
    path.write_bytes(content + b"\0" * 100)  # what some cameras append
    assert read_header(str(path)).defect == ""


def test_other_defects(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    assert read_header(str(path)).defect == "is not there"
    path.write_bytes(b"")
    assert read_header(str(path)).defect == "is empty (0 bytes)"
    path.write_text("<html>404</html>")
    assert read_header(str(path)).defect.startswith("cannot be read (UnidentifiedImageError")
    assert read_header(str(tmp_path)).defect.startswith("cannot be read (IsADirectoryError")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "f.tif")
    assert "floating-point" in read_header(str(tmp_path / "f.tif")).defect
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "more than 2000 pixels" in read_header(_image(path)).defect


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    header = read_header(_oriented(tmp_path / "a.jpg", orientation))
    assert header.orientation == orientation
    assert header.upright_size == ((48, 64) if orientation >= 5 else (64, 48))


def test_what_is_no_image_for_pil_is_not_judged(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 5)))
    (tmp_path / "b.jpg").write_text("none")
    npy, jpg, remote = read_headers(
        [str(tmp_path / "a.npy"), str(tmp_path / "b.jpg"), "s3://c.jpg"]
    )
    assert npy is None and remote is None and jpg.defect


def test_a_changed_file_is_read_again_and_another_is_not(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(headers, "read_header", lambda p: read.append(p) or read_header(p))
    path = _image(tmp_path / "a.jpg")
    for _ in range(2):
        assert read_headers([path, path])[1].width == 64
    assert read == [path]
    _image(path, size=(32, 48))
    assert read_headers([path])[0].width == 32


def test_headers_are_kept_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(headers, "CACHED_FROM", 2)
    paths = [_image(tmp_path / f"{i}.jpg") for i in range(3)]
    first = read_headers(paths[:2])
    monkeypatch.setattr(headers, "_known", {})
    read = []
    monkeypatch.setattr(headers, "read_header", lambda p: read.append(p) or read_header(p))
    assert read_headers(paths) == [*first, first[0]]
    assert read == paths[2:]
    (file,) = (tmp_path / "cache" / "gfocal").iterdir()
    file.write_text("{broken")
    monkeypatch.setattr(headers, "_known", {})
    assert read_headers(paths)[0] == Header(64, 48, 1, "RGB")


def test_a_cache_that_cannot_be_written_is_none(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(headers, "CACHED_FROM", 1)
    assert read_headers([_image(tmp_path / "a.jpg")])[0].width == 64


def _break(path, how):
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 9 // 10])
    elif how == "smaller":
        _image(path, size=(32, 24))
    elif how == "exchanged":
        _image(path, size=(48, 64))
    else:
        _oriented(path, 6)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("empty", r"1 unreadable.*\n  image 7 \(b\.jpg\): the file is empty"),
        ("cut", r"1 unreadable.*\n  image 7 \(b\.jpg\): the file is cut off"),
        ("smaller", r"1 of another size than its file.*\n.*\(64, 48\), the file has \(32, 24\)"),
        ("exchanged", r"1 with width and height exchanged"),
        ("turned", r"1 labelled as stored, but turned by EXIF.*\n.*orientation 6 .*exiftool"),
    ],
)
def test_a_json_and_its_images(tmp_path, how, message):
    paths = write_dataset(tmp_path, valid_document())
    _break(tmp_path / "images" / "b.jpg", how)
    with pytest.raises(ValueError, match=message):
        read_coco_json(*paths)
    data = read_coco_json(*paths, on_invalid="drop")
    assert [image["id"] for image in data.images] == [3, 9] and len(data.annotations) == 2
    assert len(read_coco_json(*paths, check=False).images) == 3


def test_a_turned_image_with_labels_of_the_turned_picture_is_right(tmp_path):
    paths = write_dataset(tmp_path, valid_document())
    _oriented(tmp_path / "images" / "b.jpg", 6, size=(48, 64))  # 64 x 48, as in the json
    assert len(read_coco_json(*paths).images) == 3


def test_an_image_on_its_head_is_a_warning(tmp_path, caplog):
    paths = write_dataset(tmp_path, valid_document())
    _oriented(tmp_path / "images" / "b.jpg", 3)
    assert len(read_coco_json(*paths).images) == 3
    assert "1 images are mirrored or turned by 180 degrees" in caplog.text


@pytest.mark.parametrize("seconds", [0.0, 0.002])
def test_threads_where_a_disk_is_slow(monkeypatch, seconds):
    """In one thread or in many: each once, and in order."""
    monkeypatch.setattr(headers, "_TRIED", 4)
    now = [0.0]
    monkeypatch.setattr(headers.time, "perf_counter", lambda: now[0])  # whatever else runs here
    threads = set()

    def read(path):
        now[0] += seconds
        time.sleep(seconds)
        threads.add(threading.get_ident())
        return path * 2

    paths = [str(number) for number in range(40)]
    assert list(headers._each(read, paths)) == [path * 2 for path in paths]
    assert (len(threads) == 1) == (seconds == 0)
    assert list(headers._each(read, [])) == []
