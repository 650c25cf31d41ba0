"""A COCO json, read once and checked as a whole.

Detectron2's ``load_coco_json`` takes the annotations as they are. A box without area, a missing
file or an annotation of an unknown image then shows up much later, or never. Here each message
names the json, the image id and the annotation id.

Units: boxes are XYWH, in pixels.
"""

import contextlib
import functools
import gc
import json
import os
from typing import Any, NamedTuple

from detectron2.utils.file_io import PathManager

from .coco_entries import Invalid, valid_annotations, valid_images
from .messages import HOW_TO_POINT, absolute_path, shorten

__all__ = [
    "CocoJson",
    "category_difference",
    "coco_num_classes",
    "read_categories",
    "read_coco_json",
]

_NUMBER = (int, float)
_ID = (int, float, str)
_Types = dict[str, type | tuple[type, ...]]  # of the fields of a record
_REQUIRED: dict[str, _Types] = {  # sizes and boxes: see coco_entries
    "images": {"id": _ID, "file_name": str, "height": object, "width": object},
    "annotations": {"id": _ID, "image_id": _ID, "category_id": _ID, "bbox": object},
    "categories": {"id": _ID, "name": _ID},
}
_OPTIONAL: _Types = {"area": (*_NUMBER, type(None)), "iscrowd": (*_NUMBER, type(None))}


class CocoJson(NamedTuple):
    """The valid content of a COCO json, still in COCO's format.

    Attributes:
        images: the image records, sorted by id.
        annotations: the annotations of these images, in the order of the file, with "bbox" as four
            floats (XYWH, pixels), "area" (by default the area of the bbox) and "iscrowd".
        category_ids: the category ids in ascending order; the position is the class index.
        category_names: their names.
        has_annotations: False for a json with images only, such as a test set without truth.
    """

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    category_ids: list[int]
    category_names: list[str]
    has_annotations: bool


def read_coco_json(json_file: str, image_root: str, on_invalid: str = "error") -> CocoJson:
    """Reads and checks a COCO instances json.

    An image is invalid if its file is missing or another image has its id. An annotation is invalid

    - if its image is unknown or was left out, its category is unknown, or another has its id;
    - if its box is not four finite numbers, has no width or height, or lies outside its image;
    - if its area is negative or not finite, or its "iscrowd" is neither 0 nor 1;
    - if it has the flag "ignore" (COCO's way is "iscrowd").

    Args:
        json_file: the json.
        image_root: the folder that its file names are relative to.
        on_invalid: "error" or "drop", see :func:`gfocal.data.register_coco_json`.

    Raises:
        FileNotFoundError: no such json; with "error" also an image file that is not there.
        ValueError: not a COCO json, no image in it, or, with "error", anything invalid.
    """
    document = _parse(json_file)
    invalid = Invalid(json_file)
    _check_fields(document["images"], "images", json_file)
    images = valid_images(document["images"], image_root, invalid)
    categories = _sorted_categories(document, json_file)
    found = document.get("annotations", [])
    _check_fields(found, "annotations", json_file)
    all_image_ids = {x["id"] for x in document["images"]}
    annotations = valid_annotations(found, images, all_image_ids, categories, invalid)
    invalid.finish(on_invalid, len(document["images"]), len(found))
    if not images:
        raise ValueError(f"{json_file} has no usable image")
    return CocoJson(
        images=sorted(images.values(), key=lambda image: image["id"]),
        annotations=annotations,
        category_ids=list(categories),
        category_names=list(categories.values()),
        has_annotations="annotations" in document,
    )


def coco_num_classes(json_file: str) -> int:
    """Returns the number of categories in a COCO json.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a COCO json.
    """
    if not json_file:
        raise ValueError(f"no json to take the number of classes from. {HOW_TO_POINT}")
    return len(read_categories(json_file))


def read_categories(json_file: str) -> dict[int, str]:
    """The categories {id: name} by ascending id. An unchanged json is read only once."""
    path = PathManager.get_local_path(json_file)
    stat = os.stat(path) if os.path.isfile(path) else None
    return _categories_of(json_file, stat and (stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=16)
def _categories_of(json_file: str, version: tuple[int, int] | None) -> dict[int, str]:
    del version  # part of the cache's key
    return _sorted_categories(_parse(json_file), json_file)


def category_difference(json_file: str, other_file: str) -> str:
    """Says how the categories of two jsons differ; they must differ."""
    here, there = read_categories(json_file), read_categories(other_file)
    if set(here.values()) != set(there.values()):
        only = [set(here.values()) - set(there.values()), set(there.values()) - set(here.values())]
        detail = (
            f"only in the first: {shorten(sorted(only[0]))}; "
            f"only in the second: {shorten(sorted(only[1]))}"
        )
    else:
        ids = [i for i in {**here, **there} if here.get(i) != there.get(i)]
        pairs = [f"{i}: {here.get(i, '-')} / {there.get(i, '-')}" for i in sorted(ids)]
        detail = f"the same names under other ids ({shorten(pairs)})"
    return (
        f"{json_file} ({len(here)} categories) and {other_file} ({len(there)}) must have the same "
        f"categories; {detail}"
    )


def _parse(json_file: str) -> dict[str, Any]:
    path = PathManager.get_local_path(json_file)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no COCO json {absolute_path(json_file)!r}")
    try:
        with open(path, encoding="utf-8") as f, _paused_gc():
            document = json.load(f)
    except (RecursionError, ValueError) as error:  # JSONDecodeError, UnicodeDecodeError
        raise ValueError(f"{json_file} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(  # noqa: TRY004 (the file's content, not an argument)
            f"{json_file} is a JSON {type(document).__name__}; a COCO instances json is an object "
            "with images, annotations and categories"
        )
    for key in ("images", "categories", "annotations"):
        value = document.get(key, [] if key == "annotations" else None)
        if not isinstance(value, list) or not all(isinstance(x, dict) for x in value):
            raise ValueError(f"{json_file} has no list of objects {key!r}")
    return document


@contextlib.contextmanager
def _paused_gc():
    """Halves the time for a large json, which makes millions of objects and no garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_fields(records: list[dict[str, Any]], kind: str, json_file: str) -> None:
    """Raises ValueError for a record without a field, or with a field of a wrong type."""

    def who(index: int) -> str:
        ids = (records[index].get("id", "missing"), records[index].get("image_id", "-"))
        return "{}: {}[{}] (id {}, image id {})".format(json_file, kind, index, *ids)

    required = _REQUIRED[kind]
    for index, record in enumerate(records):
        if not required.keys() <= record.keys():
            raise ValueError(
                f"{who(index)} has no {', '.join(sorted(required.keys() - record.keys()))}"
            )
    for key, types in {**required, **_OPTIONAL}.items():
        values = [record.get(key) for record in records]
        wrong = tuple(found for found in set(map(type, values)) if not issubclass(found, types))
        if wrong:
            index = next(i for i, value in enumerate(values) if isinstance(value, wrong))
            name = type(values[index]).__name__
            raise ValueError(f"{who(index)} has a {key} of type {name}: {values[index]}")
    if len({isinstance(record["id"], str) for record in records}) > 1:
        raise ValueError(
            f"{json_file}: the ids of the {kind} are numbers and strings; expected one"
        )


def _sorted_categories(document: dict[str, Any], json_file: str) -> dict[int, str]:
    records = document["categories"]
    _check_fields(records, "categories", json_file)
    ids = [record["id"] for record in records]
    if not ids:
        raise ValueError(f"{json_file} has no categories")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{json_file}: category ids are not unique: {shorten(sorted(ids))}")
    # A name that is a number becomes a string: Detectron2 takes nothing else.
    return {record["id"]: str(record["name"]) for record in sorted(records, key=lambda x: x["id"])}
