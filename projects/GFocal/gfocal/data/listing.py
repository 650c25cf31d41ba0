"""The images that a COCO json lists, for a prediction: annotations and sizes are not looked at."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .messages import absolute_path, shorten

__all__ = ["images_of_json"]


def images_of_json(
    json_file: str, image_root: str | None = None, option: str = "--image-root"
) -> tuple[list[tuple[Any, str]], list[tuple[int, str]]]:
    """Reads which images a json lists.

    Args:
        json_file: in COCO format; it may lack annotations and categories.
        image_root: the folder of its file names; by default that of the json.
        option: what the folder is called, for an error.

    Returns:
        (id, path) of each image, in the order of the file, and (id, name) of each category.

    Raises:
        FileNotFoundError: no such file or folder, or none of the images is there.
        ValueError: not such a json; an image without id or file name; an id that comes twice.
    """
    if not os.path.isfile(json_file):
        raise FileNotFoundError(f"no json {absolute_path(json_file)!r}")
    root = os.path.dirname(json_file) if image_root is None else image_root
    if root and not os.path.isdir(root):
        raise FileNotFoundError(f"no image folder {absolute_path(root)!r}")
    try:
        with open(json_file, encoding="utf-8") as file:
            document = json.load(file)
    except ValueError as error:
        raise ValueError(f"{json_file} is no json ({error})") from error
    images = document.get("images") if isinstance(document, Mapping) else None
    if type(images) is not list:
        raise ValueError(f'{json_file} has no list "images"; expected a json in COCO format')
    ret: dict[Any, str] = {}
    for index, image in enumerate(images):
        if not (type(image) is dict and type(image.get("file_name")) is str):
            raise ValueError(f"{json_file}: image {index} of the list has no file_name")
        key = image.get("id")
        if type(key) not in (int, str):
            raise ValueError(f"{json_file}: the id of {image['file_name']} is {key!r}")
        if key in ret:
            raise ValueError(f"{json_file}: two images have the id {key!r}")
        ret[key] = os.path.join(root, image["file_name"])
    if ret and not any("://" in path or os.path.isfile(path) for path in ret.values()):
        raise FileNotFoundError(
            f"{json_file} lists {len(ret)} images, and none of them is in {absolute_path(root)!r}: "
            f"name their folder ({option})"
        )
    return list(ret.items()), _categories(json_file, document.get("categories") or [])


def _categories(json_file: str, categories: Sequence[Any]) -> list[tuple[int, str]]:
    try:
        ret = [(category["id"], str(category["name"])) for category in categories]
    except (KeyError, TypeError):
        raise ValueError(f"{json_file}: a category lacks its id or its name") from None
    names = [name for _, name in ret]
    if len({*names}) < len(names):
        raise ValueError(f"{json_file}: two categories have one name: {shorten(names)}")
    return ret
