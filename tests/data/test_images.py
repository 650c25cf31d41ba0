"""Finding image files. (Reading: test_mapper.py, beside what the mapper makes of them.)"""

import io
import os

import numpy as np
import pytest
from detectron2.data import detection_utils as utils
from detectron2.utils.file_io import PathManager
from PIL import Image

from gfocal.data import images
from gfocal.data.images import (
    as_array,
    as_rgb,
    find_images,
    image_size,
    output_names,
    read_image,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory: a/1.png, a/2.JPG, a/notes.txt, b/1.png and scan."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/2.JPG", "a/1.png", "a/notes.txt", "b/1.png", "scan"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_files_folders_and_patterns(folder):
    first, second, other = (
        os.path.join(*x) for x in (("a", "1.png"), ("a", "2.JPG"), ("b", "1.png"))
    )
    assert find_images(["a"]) == [first, second]
    assert find_images([other, "a", "*/1.png"]) == [other, first, second]
    assert find_images(["**/*.png"]) == [first, other]
    assert find_images(["a", "./a/*g", os.path.abspath("a")]) == [first, second]  # each once
    assert find_images(["*"]) == ["scan"]  # no folders
    assert find_images(["scan"]) == ["scan"]  # whoever names a file means it


@pytest.mark.parametrize("item", ["nowhere", "*.gif", "empty"])
def test_no_image(folder, item):
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"^no image matches '{item.replace('*', '.')}'$"):
        find_images(["a", item])


def test_names_of_what_is_made_of_them():
    assert output_names(["a/1.png", "b/2.tar.jpg"]) == ["1", "2.tar"]
    with pytest.raises(ValueError, match=r"^a/1\.png, b/1\.jpg would be written to the same"):
        output_names(["a/1.png", "a/2.png", "b/1.jpg"])


def test_what_can_be_shown_of_other_channels():
    image = np.arange(2 * 2 * 5, dtype=np.uint8).reshape(2, 2, 5)
    assert np.array_equal(as_rgb(image, None), image[:, :, :3])
    assert np.array_equal(as_rgb(image, "RGB"), image[:, :, :3])
    assert np.array_equal(as_rgb(image, "BGR"), image[:, :, [2, 1, 0]])
    for grey in (image[:, :, :1], image[:, :, :2], image[:, :, 0]):
        assert np.array_equal(as_rgb(grey, "L"), image[:, :, [0, 0, 0]])
    assert as_rgb(np.full((2, 2, 3), 300.5), "RGB").tolist() == [[[255] * 3] * 2] * 2
    grey = np.full((2, 2, 3), 128, np.uint8)
    yuv = utils.convert_PIL_to_numpy(Image.fromarray(grey), "YUV-BT.601")
    assert np.abs(as_rgb(yuv, "YUV-BT.601").astype(int) - grey).max() <= 1
    with pytest.raises(ValueError, match=r"expected an image \(H, W, C\), got shape \(0, 4, 3\)"):
        as_rgb(np.zeros((0, 4, 3)), None)


def test_arrays(tmp_path):
    for channels, kept in ((1, True), (3, True), (4, True), (2, False), (5, False)):
        pixels = np.random.randint(0, 256, (4, 6, channels), dtype=np.uint8)
        np.save(tmp_path / "a.npy", pixels)
        read = read_image(tmp_path / "a.npy", "BGR")
        assert np.array_equal(read, pixels)
        assert read.dtype == (np.uint8 if kept else np.float32)
    np.save(tmp_path / "a.npy", pixels[:, :, 0])
    assert read_image(tmp_path / "a.npy").shape == (4, 6, 1)
    for wrong in (np.zeros(3), np.array([["a"]]), np.zeros((2, 2, 2, 2))):
        np.save(tmp_path / "a.npy", wrong)
        with pytest.raises(
            ValueError, match=r"a.npy: .*expected \(height, width, channels\) of num"
        ):
            read_image(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="a.npy"):  # reading it would run code
        read_image(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "missing.npy")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pixels_are_detectron2s(tmp_path, mode):
    """In every format that a reader knows, and turned by EXIF."""
    image = Image.fromarray(np.random.randint(0, 256, (5, 7, 3), np.uint8)).convert(mode)
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    for orientation in range(10):  # 0 and 9 are none
        exif = Image.Exif()
        exif[274] = orientation
        image.save(path, exif=exif)
        for format in ("BGR", "RGB", "L", "RGBA", "YUV-BT.601", None):
            expected = utils.read_image(path, format)
            found = read_image(path, format)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
        assert image_size(path) == ((7, 5) if orientation in (5, 6, 7, 8) else (5, 7))
        with Image.open(path) as opened:
            np.testing.assert_array_equal(as_array(opened, "BGR"), utils.read_image(path, "BGR"))
    yuv = utils.read_image(path, "YUV-BT.601")
    shown = utils.convert_image_to_rgb(yuv, "YUV-BT.601").clip(0, 255).astype(np.uint8)
    assert np.array_equal(as_rgb(yuv, "YUV-BT.601"), shown)


def test_files_on_other_hosts_are_detectron2s(tmp_path, monkeypatch):
    """Its PathManager reads them where it is installed."""
    Image.new("L", (3, 2), 7).save(tmp_path / "image.png")
    there = (tmp_path / "image.png").read_bytes()
    monkeypatch.setattr(PathManager, "open", lambda path, mode: io.BytesIO(there))
    assert read_image("mine://image.png", "L").tolist() == [[[7]] * 3] * 2
    monkeypatch.setattr(images, "absent", lambda: ("detectron2",))
    with pytest.raises(ValueError, match=r"mine://image.png is on another host, and only Detect"):
        read_image("mine://image.png")
    assert read_image(tmp_path / "image.png", "L").shape == (2, 3, 1)
