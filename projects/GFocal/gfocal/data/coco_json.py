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
from collections import Counter
from typing import Any, NamedTuple

from detectron2.utils.file_io import PathManager

from .coco_entries import valid_annotations, valid_images
from .coco_ids import matched_ids, numbered
from .defects import Defects
from .messages import HOW_TO_POINT, absolute_path, shorten

__all__ = [
    "CocoJson",
    "category_difference",
    "coco_num_classes",
    "read_categories",
    "read_coco_json",
    "survey_coco_json",
]

_NUMBER = (int, float)
_ID = (int, float, str)
_Types = dict[str, type | tuple[type, ...]]  # of the fields of a record
_REQUIRED: dict[str, _Types] = {  # sizes and boxes: see coco_entries
    "images": {"id": _ID, "file_name": str, "height": object, "width": object},
    "annotations": {"image_id": _ID, "category_id": _ID, "bbox": object},
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


def read_coco_json(
    json_file: str,
    image_root: str,
    on_invalid: str = "error",
    check: bool = True,
    masks: bool = False,
) -> CocoJson:
    """Reads and checks a COCO instances json.

    An image is invalid

    - if it lacks a field, or has one of a wrong type; if another image has its id;
    - if its file is missing, cannot be read, or has another size.

    An annotation is invalid

    - if it lacks a field, or has one of a wrong type;
    - if its image is unknown or was left out, or its category is unknown;
    - if its box is not four finite numbers, has no width or height, or lies outside its image;
    - if its area is negative or not finite, or its "iscrowd" is neither 0 nor 1;
    - if it has the flag "ignore" (COCO's way is "iscrowd").

    Ids of annotations are used for nothing; where they repeat, new ones are given. An id that only
    differs in type ("1" and 1) is matched. There is a warning then.

    Args:
        json_file: the json.
        image_root: the folder that its file names are relative to.
        on_invalid: "error" or "drop", see :func:`gfocal.data.register_coco_json`.
        check: look at the headers of the images, and whether the boxes have another format.
        masks: an object without a mask ("segmentation": polygons or run lengths) is invalid too.

    Raises:
        FileNotFoundError: no such json; with "error" also an image file that is not there.
        ValueError: not a COCO json, no image in it, boxes that look like another format, or, with
            "error", anything invalid.
    """
    data, defects = survey_coco_json(json_file, image_root, check, masks)
    defects.finish(on_invalid)
    if not data.images:
        raise ValueError(f"{json_file} has no usable image")
    return data


def survey_coco_json(
    json_file: str, image_root: str, check: bool = True, masks: bool = False
) -> tuple[CocoJson, Defects]:
    """As :func:`read_coco_json`, but returns what is wrong together with what is right.

    Raises:
        FileNotFoundError: no such json.
        ValueError: not a COCO json.
    """
    document = _parse(json_file)
    defects = Defects(json_file)
    defects.num_images = len(document["images"])
    found = document.get("annotations", [])
    defects.num_annotations = len(found)
    all_images = {
        x["id"]: x.get("file_name") for x in document["images"] if isinstance(x.get("id"), _ID)
    }
    records = _with_fields(document["images"], "images", defects)
    _check_order(records, "images", json_file)
    images = valid_images(records, image_root, defects, check)
    categories = _sorted_categories(document, json_file)
    records = _with_fields(found, "annotations", defects)
    for key, known in (("image_id", set(all_images)), ("category_id", set(categories))):
        records = matched_ids(records, key, known, defects)
    annotations = valid_annotations(records, images, all_images, categories, defects, check, masks)
    data = CocoJson(
        images=sorted(images.values(), key=lambda image: image["id"]),
        annotations=numbered(annotations, defects),
        category_ids=list(categories),
        category_names=list(categories.values()),
        has_annotations="annotations" in document,
    )
    return data, defects


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
        with open(path, encoding="utf-8-sig") as f, _paused_gc():
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
        if not isinstance(value, list):
            raise ValueError(  # noqa: TRY004 (as above)
                f"{json_file} has no list of objects {key!r}"
            )
        for index, record in enumerate(value):
            if not isinstance(record, dict):
                raise ValueError(  # noqa: TRY004 (as above)
                    f"{json_file}: {key}[{index}] is {str(record)[:80]!r}; expected an object"
                )
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


def _with_fields(
    records: list[dict[str, Any]], kind: str, defects: Defects
) -> list[dict[str, Any]]:
    """The records that have all fields, of the right types; ``defects`` gets the others."""
    wrong = _wrong_fields(records, kind)
    for index, (reason, detail) in wrong.items():
        defects.add(kind, reason, f"{_who(records, kind, index)} {detail}")
    return [x for index, x in enumerate(records) if index not in wrong] if wrong else records


def _wrong_fields(records: list[dict[str, Any]], kind: str) -> dict[int, tuple[str, str]]:
    """{index: (reason, detail)} of the records without a field, or with one of a wrong type."""
    required = _REQUIRED[kind]
    wrong: dict[int, tuple[str, str]] = {}
    for index, record in enumerate(records):
        if not required.keys() <= record.keys():
            missing = ", ".join(sorted(required.keys() - record.keys()))
            wrong[index] = (f"without {missing}", f"has no {missing}")
    for key, types in {**required, **_OPTIONAL}.items():
        found = set(map(type, [record.get(key) for record in records]))
        if all(issubclass(kind_found, types) for kind_found in found):
            continue
        for index, record in enumerate(records):
            value = record.get(key)
            if index not in wrong and not isinstance(value, types):
                name = type(value).__name__
                detail = f"has a {key} of type {name}: {value!r}"
                wrong[index] = (f"with a {key} of a wrong type", detail)
    return wrong


def _who(records: list[dict[str, Any]], kind: str, index: int) -> str:
    record = records[index]
    ids = f"id {record.get('id', 'missing')!r}, image id {record.get('image_id', '-')!r}"
    return f"{kind}[{index}] ({ids})"


def _check_order(records: list[dict[str, Any]], kind: str, json_file: str) -> None:
    if len({isinstance(record["id"], str) for record in records}) > 1:
        raise ValueError(
            f"{json_file}: the ids of the {kind} are numbers and strings; expected one"
        )


def _sorted_categories(document: dict[str, Any], json_file: str) -> dict[int, str]:
    records = document["categories"]
    for index, (_, detail) in _wrong_fields(records, "categories").items():
        raise ValueError(f"{json_file}: {_who(records, 'categories', index)} {detail}")
    _check_order(records, "categories", json_file)
    ids = [record["id"] for record in records]
    if not ids:
        raise ValueError(f"{json_file} has no categories")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{json_file}: category ids are not unique: {shorten(sorted(ids))}")
    # A name that is a number becomes a string: Detectron2 takes nothing else.
    names = {x["id"]: str(x["name"]) for x in sorted(records, key=lambda x: x["id"])}
    if len(set(names.values())) < len(names):
        raise ValueError(_repeated_names(names, document, json_file))
    return names


def _repeated_names(names: dict[int, str], document: dict[str, Any], json_file: str) -> str:
    used = Counter(str(x.get("category_id")) for x in document.get("annotations", []))
    repeated = {name for name, count in Counter(names.values()).items() if count > 1}
    ids = [f"id {i!r}: {used[str(i)]} annotations" for i in names if names[i] in repeated]
    return (
        f"{json_file}: category names are not unique: {shorten(sorted(repeated))} "
        f"({shorten(ids)}). Results are reported by name. Rename one, merge the two, or remove one "
        "that no annotation has"
    )
