"""A small, valid COCO dataset on disk, for tests to break."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gfocal.data import register_coco_json

# Category ids with a gap and out of order; a crowd; an image without annotations.
VALID: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "b.jpg", "width": 64, "height": 48},
        {"id": 3, "file_name": "sub/a.jpg", "width": 60, "height": 60},
        {"id": 9, "file_name": "c.jpg", "width": 48, "height": 64},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [4, 5, 20.5, 30], "area": 400.0},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [40, 8, 16, 16]},
        {"id": 5, "image_id": 3, "category_id": 18, "bbox": [0, 0, 30, 30], "iscrowd": 1},
        {"id": 6, "image_id": 3, "category_id": 18, "bbox": [30, 30, 40, 20]},
    ],
    "categories": [
        {"id": 90, "name": "toothbrush"},
        {"id": 1, "name": "person"},
        {"id": 18, "name": "dog"},
    ],
}


def valid_document() -> dict[str, Any]:
    return copy.deepcopy(VALID)


def write_dataset(folder: Path, document: dict[str, Any], name: str = "train") -> tuple[str, str]:
    """Writes the json and an image for each file name; returns json_file and image_root."""
    images = folder / "images"
    rng = np.random.default_rng(0)
    for record in VALID["images"]:
        path = images / record["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (record["height"], record["width"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    json_file = folder / f"{name}.json"
    json_file.write_text(json.dumps(document))
    return str(json_file), str(images)


def register(dataset: tuple[str, str], name: str = "mine", **kwargs: Any) -> str:
    """Registers what :func:`write_dataset` returned."""
    json_file, image_root = dataset
    return register_coco_json(name, json_file=json_file, image_root=image_root, **kwargs)
