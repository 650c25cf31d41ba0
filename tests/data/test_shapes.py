"""The generated shapes: the same for everybody, tight boxes, complete or not there."""

import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gfocal.data import coco_evaluator, detection_dataset_dicts, read_coco_json, shapes
from gfocal.data.shapes import CLASSES, MIN_VISIBLE, draw, generate_shapes, register_shapes


def _digest(folder: str) -> str:
    """Of every file's name and bytes."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    folders = [
        generate_shapes("train", root=str(tmp_path / str(i)), num_images=6, seed=seed)
        for i, seed in enumerate((3, 3, 4))
    ]
    digests = [_digest(folder) for folder in folders]
    assert digests[0] == digests[1] != digests[2]


def test_an_image_depends_on_seed_split_and_index_only(tmp_path):
    assert (draw("train", 5, seed=1).image == draw("train", 5, seed=1).image).all()
    for other in (draw("val", 5, seed=1), draw("train", 5, seed=2), draw("train", 6, seed=1)):
        assert (draw("train", 5, seed=1).image != other.image).mean() > 0.5
    few = generate_shapes("val", root=str(tmp_path), num_images=2)
    more = generate_shapes("val", root=str(tmp_path), num_images=3)
    for name in ("000000.jpg", "000001.jpg"):
        assert (Path(few, "images", name)).read_bytes() == (Path(more, "images", name)).read_bytes()


@settings(max_examples=40, deadline=None)
@given(
    index=st.integers(0, 100_000),
    seed=st.integers(0, 5),
    split=st.sampled_from(["train", "val"]),
    size=st.sampled_from([128, 192, 230]),
)
def test_boxes_are_tight_around_the_visible_pixels(index, seed, split, size):
    drawing = draw(split, index, image_size=size, seed=seed)
    assert drawing.image.shape == (size, size, 3) and drawing.image.dtype == np.uint8
    assert drawing.visible.shape == (size, size)
    assert 1 <= len(drawing.classes) == len(drawing.boxes) <= 7
    assert set(np.unique(drawing.visible)) - {-1} == set(range(len(drawing.classes)))
    for i, (x0, y0, x1, y1) in enumerate(drawing.boxes):
        assert 0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size
        mask = drawing.visible == i
        assert mask[y0:y1, x0:x1].sum() == mask.sum()  # nothing outside
        for side in (mask[y0, :], mask[y1 - 1, :], mask[:, x0], mask[:, x1 - 1]):
            assert side.any()  # and something at each side


def test_boxes_fit_what_is_in_the_picture():
    """Independent of ``visible``: without noise and blur, the picture changes at the box."""
    rng = np.random.default_rng(0)
    for label in range(len(CLASSES)):
        alpha = shapes.opacity(label, 40.0, 1.0, 0.3, np.array([30.0, 31.0]), 64)
        inside = alpha >= 0.5
        x0, y0, x1, y1 = shapes._extent(inside)
        assert 34 <= max(x1 - x0, y1 - y0) <= 41  # the circumscribed circle is 40 px wide
        canvas = np.full((64, 64, 3), 100.0)
        canvas += alpha[:, :, None] * (rng.uniform(200, 255, 3) - canvas)
        changed = np.abs(canvas - 100.0).mean(axis=2) > 50.0 * 1.2
        assert shapes._extent(changed) == pytest.approx((x0, y0, x1, y1), abs=1)


def test_areas_of_the_shapes():
    """In a circle of radius 100: circle pi r^2, square 2 r^2, triangle 3 sqrt(3)/4 r^2, star
    5 r^2 0.45 sin 36 deg, ring pi (1 - 0.48^2) r^2, cross 4 (2 a b) - (2 a)^2 with a = 0.3 r and
    b = sqrt(1 - a^2) - a, plus the middle square."""
    arm, reach = 0.3, np.sqrt(1 - 0.3**2)
    expected = {
        "circle": np.pi,
        "square": 2.0,
        "triangle": 3 * np.sqrt(3) / 4,
        "star": 5 * 0.45 * np.sin(np.pi / 5),
        "ring": np.pi * (1 - 0.48**2),
        "cross": 4 * 2 * arm * (reach - arm) + (2 * arm) ** 2,
    }
    for label, name in enumerate(CLASSES):
        alpha = shapes.opacity(label, 200.0, 1.0, 0.7, np.array([110.0, 110.0]), 220)
        assert alpha.sum() == pytest.approx(expected[name] * 100**2, rel=2e-3), name


def test_a_blurred_edge_is_wide_and_centred():
    """Across the edge of a circle of radius 40, opacity falls from 1 to 0 over 20 px."""
    alpha = shapes.opacity(0, 80.0, 20.0, 0.0, np.array([60.5, 60.5]), 121)[60]
    assert alpha[60 + 30] == pytest.approx(1.0) and alpha[60 + 50] == pytest.approx(0.0)
    assert alpha[60 + 40] == pytest.approx(0.5) and alpha[60 + 35] == pytest.approx(0.75)


def test_no_shape_is_mostly_hidden(monkeypatch):
    """Paint each shape's index in order: what a shape had, and what is left of it in the end."""
    hidden_somewhat = 0
    for index in range(60):
        areas = []
        original = shapes._place

        def recorded(*args, original=original, areas=areas):
            patch = original(*args)
            if patch is not None:
                areas.append((patch[0] >= 0.5).sum())
            return patch

        monkeypatch.setattr(shapes, "_place", recorded)
        drawing = draw("train", index)
        monkeypatch.setattr(shapes, "_place", original)
        left = np.array([(drawing.visible == i).sum() for i in range(len(areas))]) / areas
        assert (left >= MIN_VISIBLE).all()
        hidden_somewhat += (left < 0.95).sum()
    assert hidden_somewhat > 10  # there is occlusion


def test_files_and_json(tmp_path):
    name = register_shapes("val", root=str(tmp_path), num_images=5, image_size=128)
    dicts = DatasetCatalog.get(name)
    (folder,) = tmp_path.iterdir()
    assert name == "gfocal_shapes_val_5x128px_seed0_v2"
    document = json.loads((folder / "annotations.json").read_text())
    assert document["info"]["num_images"] == 5 and document["info"]["image_size"] == 128
    data = read_coco_json(str(folder / "annotations.json"), str(folder / "images"))
    assert len(data.images) == 5 and tuple(data.category_names) == CLASSES
    assert MetadataCatalog.get(name).thing_classes == list(CLASSES)
    for index, record in enumerate(dicts):
        drawing = draw("val", index, image_size=128)
        with Image.open(record["file_name"]) as image:
            difference = np.abs(np.asarray(image).astype(int) - drawing.image)
        assert difference.mean() < 8  # JPEG
        boxes = np.array([a["bbox"] for a in record["annotations"]])
        boxes[:, 2:] += boxes[:, :2]
        assert (boxes == drawing.boxes).all()
        assert [a["category_id"] for a in record["annotations"]] == drawing.classes


def test_all_classes_and_sizes_occur():
    drawings = [draw("train", index) for index in range(60)]
    counts = np.bincount(np.concatenate([d.classes for d in drawings]), minlength=len(CLASSES))
    assert (counts >= 15).all()
    boxes = np.concatenate([d.boxes for d in drawings])
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    assert (sides < 32).mean() > 0.2 and (sides > 48).mean() > 0.15


def test_generated_once(tmp_path, monkeypatch):
    folder = generate_shapes("val", root=str(tmp_path), num_images=2)
    before = _digest(folder)
    monkeypatch.setattr(shapes, "draw", None)  # another drawing would fail
    assert generate_shapes("val", root=str(tmp_path), num_images=2) == folder
    assert _digest(folder) == before


@pytest.mark.parametrize(
    "use", [DatasetCatalog.get, coco_evaluator, detection_dataset_dicts, lambda x: x]
)
def test_generated_on_first_use(tmp_path, monkeypatch, use):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    name = register_shapes("val", num_images=2)
    assert register_shapes("val", num_images=2) == name
    assert MetadataCatalog.get(name).thing_classes == list(CLASSES)
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id[1] == 0
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("DETECTRON2_DATASETS", "/another/folder")  # the registered one counts
    use(name)
    files = [tmp_path / "gfocal_shapes" / "val_2x192px_seed0_v2" / "annotations.json"]
    assert list(tmp_path.glob("*/*/*.json")) == files * (use.__name__ != "<lambda>")
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_other_parameters_go_into_another_folder(tmp_path, monkeypatch):
    options = [{}, {"num_images": 3}, {"seed": 1}, {"image_size": 128}]
    folders = [
        generate_shapes("val", root=str(tmp_path), **{"num_images": 2, **o}) for o in options
    ]
    folders.append(generate_shapes("train", root=str(tmp_path), num_images=2))
    monkeypatch.setattr(shapes, "VERSION", 99)
    folders.append(generate_shapes("val", root=str(tmp_path), num_images=2))
    assert len(set(folders)) == 6
    assert sorted(map(str, tmp_path.iterdir())) == sorted(folders)  # and nothing else is left


def test_default_root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "elsewhere"))
    folder = generate_shapes("val", num_images=1)
    assert Path(folder).parent == tmp_path / "elsewhere" / "gfocal_shapes"
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(tmp_path)
    folder = generate_shapes("val", num_images=1)
    assert Path(folder).parent == Path("datasets") / "gfocal_shapes"


def test_an_interrupted_generation_leaves_nothing(tmp_path, monkeypatch):
    original = shapes.draw

    def fails_at_the_third(split, index, **kwargs):
        if index == 2:
            raise KeyboardInterrupt
        return original(split, index, **kwargs)

    monkeypatch.setattr(shapes, "draw", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        generate_shapes("val", root=str(tmp_path), num_images=4)
    assert list(tmp_path.iterdir()) == []


def _generate_together(barrier, root):
    barrier.wait()
    generate_shapes("val", root=root, num_images=40)


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [
        context.Process(target=_generate_together, args=(barrier, str(tmp_path))) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    (folder,) = tmp_path.iterdir()
    data = read_coco_json(str(folder / "annotations.json"), str(folder / "images"))
    assert len(data.images) == 40


def test_the_race_is_decided_at_the_rename(tmp_path, monkeypatch):
    """Another process finishes between our look and our rename."""
    folder = generate_shapes("val", root=str(tmp_path), num_images=2)
    before = _digest(folder)
    monkeypatch.setattr(shapes.os.path, "isdir", _false_once(shapes.os.path.isdir, folder))
    assert generate_shapes("val", root=str(tmp_path), num_images=2) == folder
    assert _digest(folder) == before
    assert [str(path) for path in tmp_path.iterdir()] == [folder]


def _false_once(isdir, folder):
    answers = [False]
    return lambda path: answers.pop() if path == folder and answers else isdir(path)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"split": "test"}, "split is 'test'; expected one of 'train', 'val'"),
        ({"num_images": 0}, "num_images is 0; expected at least 1"),
        ({"image_size": 64}, "image_size is 64; expected at least 128"),
        ({"seed": -1}, "seed is -1; expected a number from 0 on"),
    ],
)
def test_bad_arguments(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        register_shapes(**{"split": "val", "root": str(tmp_path), **kwargs})
    assert list(tmp_path.iterdir()) == []
