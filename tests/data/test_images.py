"""Finding image files. (Reading: test_mapper.py, beside what the mapper makes of them.)"""

import os

import numpy as np
import pytest
from detectron2.data import detection_utils as utils
from PIL import Image

from gfocal.data.images import as_rgb, find_images, output_names, read_image


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
