"""A generated dataset of drawn shapes, in COCO format: for demos, tests and quick experiments.

Each image has a textured background and a few shapes, later ones in front of earlier ones. A
shape has a class, a size, a rotation, a texture and an edge that is sharp or blurred over some
pixels. An image depends on (seed, split, index) only.

A box is tight around the visible pixels of its shape: there the shape is at least half opaque, and
no later shape is. Each drawn shape is annotated. At least ``MIN_VISIBLE`` of its pixels are
visible; positions that would hide more are not used.

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

__all__ = ["CLASSES", "generate_shapes", "register_shapes"]

CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")
MIN_VISIBLE = 0.4
SPLITS = {"train": 1000, "val": 200}  # images, by default
VERSION = 1  # raise it when the drawing changes: old folders are then left alone

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


def opacity(
    label: int, diameter: float, softness: float, angle: float, center: np.ndarray, size: int
) -> np.ndarray:
    """(size, size) opacity. It falls from 1 to 0 over ``softness`` pixels across the edge; one
    pixel is anti-aliasing."""
    x, y = np.arange(size) + 0.5 - center[0], (np.arange(size) + 0.5 - center[1])[:, None]
    radius = diameter / 2
    if CLASSES[label] == "circle":
        distance = np.hypot(x, y) - radius
    elif CLASSES[label] == "ring":
        distance = np.abs(np.hypot(x, y) - 0.74 * radius) - 0.26 * radius
    else:
        distance = _polygon_distance(x, y, corners(label, diameter, angle))
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def corners(label: int, diameter: float, angle: float) -> np.ndarray:
    """(n, 2) corners that span a shape's box; x and y, from its centre."""
    if CLASSES[label] not in _POLYGONS:
        return diameter / 2 * np.array([[-1.0, -1.0], [1.0, 1.0]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return diameter / 2 * _POLYGONS[CLASSES[label]] @ turn.T


def _regular(corners: int, inner: float | None = None) -> np.ndarray:
    """(n, 2) a polygon in the unit circle; with ``inner``, a star with that inner radius."""
    count = corners if inner is None else 2 * corners
    radius = np.ones(count)
    if inner is not None:
        radius[1::2] = inner
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def _cross(arm: float) -> np.ndarray:
    """(12, 2) a cross whose arms are ``arm`` wide, half, in the unit circle."""
    reach = np.sqrt(1 - arm**2)
    quarter = np.array([[arm, -reach], [arm, -arm], [reach, -arm]])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])  # by 90 degrees
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, i).T for i in range(4)])


_POLYGONS = {
    "square": _regular(4),
    "triangle": _regular(3),
    "star": _regular(5, inner=0.45),
    "cross": _cross(0.3),
}


def _polygon_distance(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Distance of points to a polygon's boundary, negative inside (even-odd rule)."""
    nearest = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf)
    inside = np.zeros(nearest.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0)):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        nearest = np.minimum(nearest, (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)
        crosses = (y0 <= y) != (y1 <= y)
        if dy:
            inside ^= crosses & (x < x0 + (y - y0) * dx / dy)
    return np.where(inside, -1.0, 1.0) * np.sqrt(nearest)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) float32, a colour with smooth noise at several scales."""
    scales = ((3, 35.0), (8, 22.0), (24, 16.0), (64, 12.0))  # cells across the image, strength
    noise = np.stack([_smooth_noise(rng, size, cells) for cells, _ in scales], axis=2)
    strength = np.array([x for _, x in scales])[:, None] * rng.uniform(0.3, 1.0, (len(scales), 1))
    tints = strength * rng.uniform(0.5, 1.0, (len(scales), 3))
    colour = rng.uniform(60.0, 195.0, 3)
    return noise @ tints.astype(np.float32) + colour.astype(np.float32)


def paint(rng: np.random.Generator, shape: tuple[int, ...], behind: np.ndarray) -> np.ndarray:
    """(h, w, 3) a shape's surface: a colour that differs from the one behind it, with a texture."""
    while True:
        colour = rng.uniform(20.0, 235.0, 3)
        if np.abs(colour - behind).mean() > 40.0:
            break
    height, width = shape
    if rng.random() < 0.4:  # stripes
        angle, period = rng.uniform(0.0, np.pi), rng.uniform(5.0, 14.0)
        phase = np.arange(width) * np.cos(angle) + np.arange(height)[:, None] * np.sin(angle)
        texture = np.sin(2 * np.pi * phase / period)
    else:
        texture = _smooth_noise(rng, max(shape), 6)[:height, :width]
    return colour + rng.uniform(0.0, 22.0) * texture[:, :, None]


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """(size, size) float32 in -1..1: random values on a grid of cells, linear in between."""
    position = np.arange(size) * (cells / size)
    cell, part = np.floor(position).astype(int), (position % 1.0).astype(np.float32)
    grid = rng.uniform(-1.0, 1.0, (cells + 1, cells + 1)).astype(np.float32)
    rows = grid[cell] * (1 - part)[:, None] + grid[cell + 1] * part[:, None]
    return rows[:, cell] * (1 - part) + rows[:, cell + 1] * part


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
