"""A generated dataset of drawn shapes, in COCO format: for demos, tests and quick experiments.

Each image has a textured background and a few shapes, later ones in front of earlier ones. A
shape has a class, a size, a rotation, a texture and an edge that is sharp or blurred over some
pixels. An image depends on (seed, split, index) only.

A box is tight around the visible pixels of its shape: there the shape is at least half opaque, and
no later shape is. Each drawn shape is annotated. At least ``MIN_VISIBLE`` of its pixels are
visible; positions that would hide more are not used. Polygons are around these pixels too.

Units: pixels; pixel (x, y) covers [x, x + 1) x [y, y + 1). Colours are in 0..255.
"""

import functools
import json
import logging
import os
import shutil
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .coco import CocoLoader, register_loader
from .drawing import CLASSES, background, opacity, paint
from .outlines import outlines

__all__ = ["CLASSES", "generate_shapes", "register_shapes"]

MIN_VISIBLE = 0.4
SPLITS = {"train": 1000, "val": 200}  # images, by default
VERSION = 2  # raise it when the drawing changes: old folders are then left alone

_DIAMETER = (26.0, 90.0)  # of the circumscribed circle, log-uniform
_NUM_SHAPES = (2, 7)
_BLURRED = 0.35  # share of the shapes with a blurred edge
_JPEG_QUALITY = 92


class Drawing(NamedTuple):
    """One image and its truth.

    Attributes:
        image: (size, size, 3) uint8, RGB.
        classes: index into CLASSES, one a shape.
        boxes: (shapes, 4) integers, XYXY.
        visible: (size, size) the index of the shape seen at a pixel, -1 for background.
    """

    image: np.ndarray
    classes: list[int]
    boxes: np.ndarray
    visible: np.ndarray


def register_shapes(
    split: str,
    *,
    root: str | None = None,
    num_images: int | None = None,
    image_size: int = 192,
    seed: int = 0,
) -> str:
    """Registers a split. Its files are generated when it is first loaded or evaluated.

    Args:
        split: "train" or "val"; they have no image in common.
        root: folder of the generated splits; by default gfocal_shapes below the folder that the
            environment variable DETECTRON2_DATASETS names ("datasets" where it is not set).
        num_images: by default 1000 for train and 200 for val. The first n images don't depend on
            it.
        image_size: width and height.
        seed: another one gives other images.

    Returns:
        the dataset's name. So a LazyCall of this function can take the place of a name.

    Raises:
        ValueError: an unknown split, or a number out of range.
    """
    num_images = _num_images(split, num_images)
    folder = _folder(split, root, num_images, image_size, seed)
    loader = CocoLoader(
        json_file=os.path.join(folder, "annotations.json"),
        image_root=os.path.join(folder, "images"),
        prepare=functools.partial(_generate, folder, split, num_images, image_size, seed),
    )
    categories = dict(enumerate(CLASSES, 1))
    return register_loader(f"gfocal_shapes_{os.path.basename(folder)}", loader, categories)


def generate_shapes(
    split: str,
    *,
    root: str | None = None,
    num_images: int | None = None,
    image_size: int = 192,
    seed: int = 0,
) -> str:
    """Generates a split: annotations.json and images/ in a folder named after the parameters.

    The folder appears complete or not at all, also when several processes generate it at once.

    Args: see :func:`register_shapes`.

    Returns:
        the folder.

    Raises:
        ValueError: an unknown split, or a number out of range.
    """
    num_images = _num_images(split, num_images)
    folder = _folder(split, root, num_images, image_size, seed)
    _generate(folder, split, num_images, image_size, seed)
    return folder


def _num_images(split: str, num_images: int | None) -> int:
    """How many images a split gets, after a check of its name."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected one of {', '.join(map(repr, SPLITS))}")
    return SPLITS[split] if num_images is None else num_images


def _folder(split: str, root: str | None, num_images: int, image_size: int, seed: int) -> str:
    """The folder of a split, after a check of the numbers."""
    for key, value, least in (("num_images", num_images, 1), ("image_size", image_size, 128)):
        if value < least:
            raise ValueError(f"{key} is {value}; expected at least {least}")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected a number from 0 on")
    if root is None:
        root = os.path.join(os.environ.get("DETECTRON2_DATASETS") or "datasets", "gfocal_shapes")
    root = os.path.expanduser(root)
    return os.path.join(root, f"{split}_{num_images}x{image_size}px_seed{seed}_v{VERSION}")


def _generate(folder: str, split: str, num_images: int, image_size: int, seed: int) -> None:
    if os.path.isdir(folder):
        return
    root = os.path.dirname(folder)
    logger = logging.getLogger(__name__)
    logger.info(f"Generating {num_images} images of shapes in {os.path.abspath(folder)}")
    start = time.perf_counter()
    os.makedirs(root, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".generating-", dir=root) as scratch:
        complete = os.path.join(scratch, "complete")
        _write(complete, split, num_images, image_size, seed)
        try:
            os.rename(complete, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
            shutil.rmtree(complete)  # another process was faster, with the same result
    logger.info(f"Generated {num_images} images in {time.perf_counter() - start:.1f} s")


def draw(split: str, index: int, *, image_size: int = 192, seed: int = 0) -> Drawing:
    """Draws one image of a split."""
    rng = np.random.default_rng([seed, list(SPLITS).index(split), index])
    canvas = background(rng, image_size)
    visible = np.full((image_size, image_size), -1, dtype=np.int64)
    areas: list[int] = []  # pixels of each shape, hidden ones included
    classes: list[int] = []
    for _ in range(rng.integers(*_NUM_SHAPES, endpoint=True)):
        label = int(rng.integers(len(CLASSES)))
        patch = _place(rng, label, visible, areas)
        if patch is None:
            continue
        alpha, (top, left) = patch
        rows, columns = slice(top, top + alpha.shape[0]), slice(left, left + alpha.shape[1])
        surface = paint(rng, alpha.shape, canvas[rows, columns].mean(axis=(0, 1)))
        canvas[rows, columns] += alpha[:, :, None] * (surface - canvas[rows, columns])
        visible[rows, columns][alpha >= 0.5] = len(classes)
        areas.append(int((alpha >= 0.5).sum()))
        classes.append(label)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)  # the camera's
    canvas += noise * np.float32(rng.uniform(2.0, 7.0))
    boxes = np.array([_extent(visible == i) for i in range(len(classes))], dtype=np.int64)
    return Drawing(canvas.clip(0, 255).round().astype(np.uint8), classes, boxes, visible)


def _place(
    rng: np.random.Generator, label: int, visible: np.ndarray, areas: list[int]
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """Finds a place for a shape that leaves enough of the earlier shapes visible. Returns its
    opacity on a patch, and the patch's top left; None if there is no such place."""
    size = len(visible)
    diameter = np.exp(rng.uniform(*np.log(_DIAMETER)))
    softness = rng.uniform(0.06, 0.24) * diameter if rng.random() < _BLURRED else 1.0
    angle = rng.uniform(0.0, 2 * np.pi)
    reach = int(np.ceil((diameter + softness) / 2)) + 1
    for _ in range(20):
        center = rng.uniform(reach, size - reach, 2)  # x, y
        left, top = np.floor(center).astype(int) - reach
        alpha = opacity(label, diameter, softness, angle, center - (left, top), 2 * reach + 1)
        alpha = alpha[: size - top, : size - left]
        patch = visible[top : top + len(alpha), left : left + alpha.shape[1]]
        covered = np.bincount(patch[(alpha >= 0.5) & (patch >= 0)], minlength=len(areas))
        left_over = np.bincount(visible[visible >= 0], minlength=len(areas)) - covered
        if (left_over >= MIN_VISIBLE * np.array(areas)).all():
            return alpha, (int(top), int(left))
    return None


def _extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box, XYXY, tight around the pixels of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _write(folder: str, split: str, num_images: int, image_size: int, seed: int) -> None:
    os.makedirs(os.path.join(folder, "images"))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(num_images):
        drawing = draw(split, index, image_size=image_size, seed=seed)
        file_name = f"{index:06d}.jpg"
        Image.fromarray(drawing.image).save(
            os.path.join(folder, "images", file_name), quality=_JPEG_QUALITY
        )
        images.append(
            {"id": index + 1, "file_name": file_name, "width": image_size, "height": image_size}
        )
        for i, (label, (x0, y0, x1, y1)) in enumerate(zip(drawing.classes, drawing.boxes.tolist())):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": label + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int((drawing.visible == i).sum()),
                    "segmentation": [
                        outline.flatten().tolist() for outline in outlines(drawing.visible == i)
                    ],
                    "iscrowd": 0,
                }
            )
    document = {
        "info": {
            "description": "shapes generated by gfocal.data.shapes",
            "version": VERSION,
            "split": split,
            "num_images": num_images,
            "image_size": image_size,
            "seed": seed,
        },
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
    }
    with open(os.path.join(folder, "annotations.json"), "w", encoding="utf-8") as f:
        json.dump(document, f)
