"""Finding image files. (Reading: test_mapper.py, beside what the mapper makes of them.)"""

import os

import pytest

from gfocal.data.images import find_images, output_names


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
