"""COCO-format datasets: checked when they are read, and evaluated on what was read.

Detectron2's ``load_coco_json`` takes the annotations as they are: a box without area, a file that
is not there or an annotation of an unknown image shows up much later, if at all. Here a json is
read once and checked as a whole, and each message names the json, the image id and the annotation
id.

Units: boxes are XYWH, in pixels.
"""

import contextlib
import dataclasses
import difflib
import functools
import gc
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from pycocotools.coco import COCO

from .mapper import check_crowds

__all__ = [
    "CocoJson",
    "check_dataset_files",
    "coco_evaluator",
    "coco_num_classes",
    "detection_dataset_dicts",
    "read_coco_json",
    "register_coco_json",
]

_SHOWN = 5  # examples in an error message


class CocoJson(NamedTuple):
    """What is valid in a COCO json, still in COCO's format.

    Attributes:
        images: the image records, sorted by id.
        annotations: the annotations of these images, in the order of the file, with "bbox" as four
            floats (XYWH, pixels) and "area" (bbox area where the file has none) and "iscrowd".
        category_ids: the category ids in ascending order; the position is the class index.
        category_names: their names.
        has_annotations: False for an image-only json, as of a test set whose truth is withheld.
    """

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    category_ids: list[int]
    category_names: list[str]
    has_annotations: bool


def register_coco_json(
    name: str,
    *,
    json_file: str,
    image_root: str,
    num_classes: int | None = None,
    on_invalid: str = "error",
    same_categories_as: str | None = None,
) -> str:
    """Registers a COCO json in DatasetCatalog and MetadataCatalog.

    The categories are read now; images and annotations are read and checked when the dataset is
    loaded. The same call again changes nothing; the same name with other files replaces.

    Args:
        name: the dataset's name.
        json_file: instances json; any category ids, also with gaps.
        image_root: the folder that its file names are relative to.
        num_classes: if given, the number of categories that the json must have.
        on_invalid: "error": an invalid image or annotation is an error; "drop": it is left out, in
            training and in evaluation, and counted by reason in the log.
        same_categories_as: another json, whose category ids and names must be the same.

    Returns:
        ``name``, so that a LazyCall of this function can stand where a dataset's name is expected.

    Raises:
        FileNotFoundError: the json or the folder is not there.
        ValueError: no such path was given, not a COCO json, another number of categories, other
            categories than ``same_categories_as``, or the name is that of a dataset that was not
            registered here.
    """
    if on_invalid not in ("error", "drop"):
        raise ValueError(f'on_invalid is {on_invalid!r}; expected "error" or "drop"')
    for key, value in (("json_file", json_file), ("image_root", image_root)):
        if not value:
            raise ValueError(f"dataset {name!r} has no {key}. {_HOW_TO_POINT}")
    categories = _categories(json_file)
    if not PathManager.isdir(image_root):
        raise FileNotFoundError(f"dataset {name!r}: no image folder {_absolute(image_root)!r}")
    if num_classes is not None and num_classes != len(categories):
        raise ValueError(
            f"num_classes is {num_classes}, but {json_file} has {len(categories)} categories: "
            f"{_shorten(categories.values())}"
        )
    if same_categories_as and _categories(same_categories_as) != categories:
        raise ValueError(_difference(json_file, same_categories_as))

    return register_loader(name, CocoLoader(json_file, image_root, on_invalid), categories)


@dataclasses.dataclass(frozen=True)
class CocoLoader:
    """What DatasetCatalog calls to load a dataset.

    Attributes:
        json_file, image_root, on_invalid: see :func:`register_coco_json`.
        prepare: makes the files where they are not there yet.
    """

    json_file: str
    image_root: str
    on_invalid: str = "error"
    prepare: Callable[[], Any] | None = dataclasses.field(default=None, compare=False)

    def read(self) -> CocoJson:
        if self.prepare is not None:
            self.prepare()
        return read_coco_json(self.json_file, self.image_root, self.on_invalid)

    def __call__(self) -> list[dict[str, Any]]:
        return _dataset_dicts(self.read(), self.json_file, self.image_root)


def register_loader(name: str, loader: CocoLoader, categories: dict[int, str]) -> str:
    """Registers a dataset whose categories, {id: name} by ascending id, are known.

    Returns:
        ``name``.

    Raises:
        ValueError: the name is that of a dataset that was not registered here.
    """
    classes = list(categories.values())
    ids = {key: index for index, key in enumerate(categories)}
    if name in DatasetCatalog:
        registered, metadata = DatasetCatalog[name], MetadataCatalog.get(name)
        if not isinstance(registered, CocoLoader):
            raise ValueError(f"the dataset name {name!r} is taken; choose another one")
        known = (metadata.get("thing_classes"), metadata.get("thing_dataset_id_to_contiguous_id"))
        if registered == loader and known == (classes, ids):
            return name  # what others have added to the metadata stays
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, loader)
    MetadataCatalog.get(name).set(
        json_file=loader.json_file,
        image_root=loader.image_root,
        evaluator_type="coco",
        thing_classes=classes,
        thing_dataset_id_to_contiguous_id=ids,
    )
    return name


def coco_num_classes(json_file: str) -> int:
    """Returns the number of categories in a COCO json.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a COCO json.
    """
    if not json_file:
        raise ValueError(f"no json to take the number of classes from. {_HOW_TO_POINT}")
    return len(_categories(json_file))


def detection_dataset_dicts(
    names: str | Sequence[str], filter_empty: bool = True, crowds: str = "drop"
) -> list[dict[str, Any]]:
    """Detectron2's ``get_detection_dataset_dicts``, after looking whether the files are there.

    Args:
        names: registered datasets.
        filter_empty: leave out images without a box.
        crowds: as the mapper's, :class:`gfocal.data.DetectionMapper`: with "drop" a crowd is no box
            either, with "ignore" an image of crowds alone stays.

    Returns:
        Detectron2's dataset dicts.

    Raises:
        FileNotFoundError: a file of a dataset is not there; says how to point elsewhere.
        ValueError: no such dataset, one is named twice, no image is left, or ``crowds`` is neither.
    """
    check_crowds(crowds)
    names = [names] if isinstance(names, str) else list(names)
    if len(set(names)) < len(names):
        raise ValueError(f"a dataset is named twice: {names}")
    check_dataset_files(names)
    keep_crowds = filter_empty and crowds == "ignore"
    dicts, reason = [], "all are empty"
    try:
        dicts = get_detection_dataset_dicts(names, filter_empty=filter_empty and not keep_crowds)
    except AssertionError as error:
        reason = str(error)
    if keep_crowds:
        count = len(dicts)
        dicts = [x for x in dicts if x.get("annotations", True)]
        logging.getLogger(__name__).info(f"Left out {count - len(dicts)} images without a box")
    if dicts:
        return dicts
    files = [MetadataCatalog.get(name).get("json_file", "no json") for name in names]
    where = ", ".join(f"{name} ({file})" for name, file in zip(names, files))
    what = "image with a box" + " that is no crowd" * (not keep_crowds) if filter_empty else "image"
    raise ValueError(f"no {what} in {where or 'an empty list of datasets'}: {reason}")


def coco_evaluator(dataset_name: str, *, output_dir: str | None = None) -> COCOEvaluator:
    """Builds Detectron2's COCOEvaluator, for Detectron2 with and without its compiled ops.

    A dataset of :func:`register_coco_json` is evaluated on its checked annotations. That also
    serves pycocotools, which ignores a box whose annotation id is 0 and stops where an annotation
    has no "area".

    Args:
        dataset_name: a registered dataset.
        output_dir: a folder for the predictions, as json; by default they are not written.

    Raises:
        FileNotFoundError: a file of the dataset is not there.
        ValueError: no such dataset.
    """
    check_dataset_files([dataset_name])
    metadata = MetadataCatalog.get(dataset_name)
    has_json = hasattr(metadata, "json_file")
    try:
        evaluator = COCOEvaluator(
            dataset_name, output_dir=output_dir, use_fast_impl=_has_fast_eval()
        )
    finally:
        if not has_json:  # Detectron2 has named one in output_dir, which need not stay there
            vars(metadata).pop("json_file", None)
    loader = DatasetCatalog[dataset_name]
    if isinstance(loader, CocoLoader):
        evaluator._coco_api = _ground_truth(loader.read())
    return evaluator


def check_dataset_files(names: Iterable[str]) -> None:
    """Checks that datasets are registered, and that their json files and image folders exist.

    A dataset that is generated on first use is generated here.

    Raises:
        FileNotFoundError: one is not there; says where it was looked for and how to change that.
        ValueError: a dataset is not registered.
    """
    for name in names:
        if name not in DatasetCatalog:
            nearest = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
            raise ValueError(
                f"no dataset {name!r} is registered" + f"; did you mean {nearest}?" * bool(nearest)
            )
        if (prepare := getattr(DatasetCatalog[name], "prepare", None)) is not None:
            prepare()
        metadata = MetadataCatalog.get(name)
        for key in ("json_file", "image_root"):
            path = metadata.get(key, None)
            if path and not PathManager.exists(path):
                raise FileNotFoundError(
                    f"dataset {name!r}: {key} {_absolute(path)!r} is not there. Detectron2 looks "
                    "for the datasets that it knows below the folder named by the environment "
                    f"variable DETECTRON2_DATASETS ({_datasets_root()}); set it to the folder that "
                    "holds coco/annotations and coco/train2017, say. "
                    f"{_HOW_TO_POINT}"
                )


def read_coco_json(json_file: str, image_root: str, on_invalid: str = "error") -> CocoJson:
    """Reads and checks a COCO instances json.

    Invalid are: an image without a file or with the id of another; an annotation of an unknown
    image or of one that was left out, of an unknown category, with the id of another, with a box
    that is not four finite numbers, has no width or height or lies outside its image, with an area
    that is negative or not finite, with an "iscrowd" that is neither 0 nor 1, or flagged "ignore"
    (COCO's way is "iscrowd").

    Args:
        json_file: the json.
        image_root: the folder that its file names are relative to.
        on_invalid: "error" or "drop", see :func:`register_coco_json`.

    Raises:
        FileNotFoundError: no such json; with "error" also an image file that is not there.
        ValueError: not a COCO json, no image in it, or, with "error", anything invalid.
    """
    document = _parse(json_file)
    invalid = _Invalid(json_file)
    images = _valid_images(document["images"], image_root, invalid)
    categories = _sorted_categories(document, json_file)
    found = document.get("annotations", [])
    annotations = _valid_annotations(
        found, images, {x["id"] for x in document["images"]}, categories, invalid
    )
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


# What an error about a missing path can tell, whichever config it comes from.
_HOW_TO_POINT = (
    "For a dataset of your own use configs/quick_start/custom_coco.py with the overrides "
    "data.train_json=... data.train_images=... data.val_json=... data.val_images=..."
)


class _Invalid:
    """Collects what is wrong in one json, by reason."""

    def __init__(self, json_file: str):
        self.json_file = json_file
        self.counts: dict[str, dict[str, int]] = {"images": {}, "annotations": {}}
        self.examples: list[str] = []
        self.missing_file = False

    def add(self, kind: str, reason: str, example: str) -> None:
        counts = self.counts[kind]
        counts[reason] = counts.get(reason, 0) + 1
        if len(self.examples) < _SHOWN:
            self.examples.append(example)

    def finish(self, on_invalid: str, num_images: int, num_annotations: int) -> None:
        """Raises or logs, if there was anything."""
        total = sum(sum(counts.values()) for counts in self.counts.values())
        if not total:
            return
        parts = []
        for kind, number in (("images", num_images), ("annotations", num_annotations)):
            if self.counts[kind]:
                reasons = ", ".join(f"{n} {reason}" for reason, n in self.counts[kind].items())
                parts.append(f"{sum(self.counts[kind].values())} of {number} {kind} ({reasons})")
        summary = " and ".join(parts)
        if on_invalid == "drop":
            logging.getLogger(__name__).warning(f"{self.json_file}: dropped {summary}")
            return
        lines = [f"{self.json_file}: invalid: {summary}"]
        lines += [f"  {example}" for example in self.examples]
        if total > len(self.examples):
            lines.append(f"  ... and {total - len(self.examples)} more")
        lines.append('on_invalid="drop" (in custom_coco.py data.on_invalid=drop) leaves them out')
        raise (FileNotFoundError if self.missing_file else ValueError)("\n".join(lines))


def _parse(json_file: str) -> dict[str, Any]:
    path = PathManager.get_local_path(json_file)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no COCO json {_absolute(json_file)!r}")
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
    """Halves the time for a large json: it makes millions of objects, and no garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_NUMBER = (int, float)
_LARGEST = sys.float_info.max  # json has larger numbers: 1e400 is inf, and an int has no limit
_ID = (int, float, str)
_REQUIRED = {  # sizes and boxes are looked at further on
    "images": {"id": _ID, "file_name": str, "height": object, "width": object},
    "annotations": {"id": _ID, "image_id": _ID, "category_id": _ID, "bbox": object},
    "categories": {"id": _ID, "name": _ID},
}
_OPTIONAL = {"area": (*_NUMBER, type(None)), "iscrowd": (*_NUMBER, type(None))}


def _check_fields(records: list[dict[str, Any]], kind: str, json_file: str) -> None:
    """Raises ValueError for a record that lacks a field, or has it in a wrong type."""

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
        raise ValueError(f"{json_file}: category ids are not unique: {_shorten(sorted(ids))}")
    # A name that is a number becomes a string: Detectron2 takes nothing else.
    return {record["id"]: str(record["name"]) for record in sorted(records, key=lambda x: x["id"])}


def _categories(json_file: str) -> dict[int, str]:
    """The categories {id: name} by ascending id; a json that did not change is read once."""
    path = PathManager.get_local_path(json_file)
    stat = os.stat(path) if os.path.isfile(path) else None
    return _read_categories(json_file, stat and (stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=16)
def _read_categories(json_file: str, version: tuple[int, int] | None) -> dict[int, str]:
    del version  # part of the cache's key
    return _sorted_categories(_parse(json_file), json_file)


def _difference(json_file: str, other_file: str) -> str:
    here, there = _categories(json_file), _categories(other_file)
    if set(here.values()) != set(there.values()):
        only = [set(here.values()) - set(there.values()), set(there.values()) - set(here.values())]
        detail = (
            f"only in the first: {_shorten(sorted(only[0]))}; "
            f"only in the second: {_shorten(sorted(only[1]))}"
        )
    else:
        ids = [i for i in {**here, **there} if here.get(i) != there.get(i)]
        pairs = [f"{i}: {here.get(i, '-')} / {there.get(i, '-')}" for i in sorted(ids)]
        detail = f"the same names under other ids ({_shorten(pairs)})"
    return (
        f"{json_file} ({len(here)} categories) and {other_file} ({len(there)}) must have the same "
        f"categories; {detail}"
    )


def _valid_images(
    records: list[dict[str, Any]], image_root: str, invalid: _Invalid
) -> dict[Any, dict[str, Any]]:
    """The valid images by id. Looks into each folder once, not for each file."""
    _check_fields(records, "images", invalid.json_file)
    folders = {os.path.dirname(record["file_name"]) for record in records}
    files = {folder: _listing(os.path.join(image_root, folder)) for folder in folders}
    valid: dict[Any, dict[str, Any]] = {}
    for record in records:
        who = f"image {record['id']} ({record['file_name']})"
        folder, file = os.path.split(record["file_name"])
        size = (record["width"], record["height"])
        if record["id"] in valid:
            other = valid[record["id"]]["file_name"]
            invalid.add("images", "duplicate id", f"{who}: {other} has the same id")
        elif not all(isinstance(x, _NUMBER) and 0 < x <= _LARGEST for x in size):
            invalid.add("images", "size not positive or finite", f"{who}: width, height are {size}")
        elif file not in files[folder]:
            invalid.missing_file = True
            where = os.path.join(_absolute(image_root), folder)
            invalid.add("images", "without a file", f"{who}: no such file in {where}")
        else:
            valid[record["id"]] = record
    return valid


def _listing(folder: str) -> set[str]:
    return set(PathManager.ls(folder)) if PathManager.isdir(folder) else set()


def _valid_annotations(
    records: list[dict[str, Any]],
    images: dict[Any, dict[str, Any]],
    all_image_ids: set[Any],
    categories: dict[int, str],
    invalid: _Invalid,
) -> list[dict[str, Any]]:
    """The valid annotations, completed as :class:`CocoJson` says. Vectorised over annotations."""
    _check_fields(records, "annotations", invalid.json_file)
    if not records:
        return []
    boxes = _box_array([record["bbox"] for record in records])
    nowhere = {"width": np.nan, "height": np.nan}  # comparisons with nan are false
    owners = [images.get(record["image_id"], nowhere) for record in records]
    width = np.array([owner["width"] for owner in owners], dtype=np.float64)
    height = np.array([owner["height"] for owner in owners], dtype=np.float64)
    x, y, w, h = boxes.T
    with np.errstate(invalid="ignore", over="ignore"):
        outside = (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)
    seen: set[Any] = set()
    # The first reason that applies is the one reported.
    reasons = {
        "of an unknown image": [r["image_id"] not in all_image_ids for r in records],
        "of a left out image": [r["image_id"] not in images for r in records],
        "with an unknown category": [r["category_id"] not in categories for r in records],
        "with a non-finite box": ~np.isfinite(boxes).all(axis=1),
        "with a degenerate box": (w <= 0) | (h <= 0),
        "with a box outside the image": outside,
        "with the id of another": [r["id"] in seen or seen.add(r["id"]) for r in records],
        "with an area negative or not finite": [
            not 0 <= (r.get("area") or 0) <= _LARGEST for r in records
        ],
        "with an iscrowd not 0 or 1": [r.get("iscrowd") not in (None, 0, 1) for r in records],
        "flagged ignore": [r.get("ignore", 0) for r in records],
    }
    bad = np.zeros(len(records), dtype=bool)
    for reason, mask in reasons.items():
        mask = np.array(mask, dtype=bool) & ~bad
        for index in np.flatnonzero(mask):
            record = records[index]
            file = images.get(record["image_id"], {}).get("file_name", "no file")
            invalid.add(
                "annotations",
                reason,
                f"annotation {record['id']} of image {record['image_id']} ({file}), category "
                f"{record['category_id']}, bbox {record['bbox']}: {reason}",
            )
        bad |= mask
    return [
        {
            **record,
            "bbox": box,
            "area": box[2] * box[3] if record.get("area") is None else record["area"],
            "iscrowd": record.get("iscrowd") or 0,
        }
        for record, box, is_bad in zip(records, boxes.tolist(), bad.tolist())
        if not is_bad
    ]


def _box_array(rows: list[Any]) -> np.ndarray:
    """(n, 4) float64; nan where a row is not four numbers."""
    try:
        boxes = np.array(rows, dtype=np.float64)
        if boxes.shape == (len(rows), 4):
            return boxes
    except (OverflowError, TypeError, ValueError):
        pass
    boxes = np.full((len(rows), 4), np.nan)
    for index, row in enumerate(rows):
        with contextlib.suppress(OverflowError, TypeError, ValueError):
            row = np.array(row, dtype=np.float64)
            if row.shape == (4,):
                boxes[index] = row
    return boxes


def _dataset_dicts(data: CocoJson, json_file: str, image_root: str) -> list[dict[str, Any]]:
    """Detectron2's dataset dicts. Boxes only: a detector needs no polygons and no keypoints."""
    classes = {category_id: index for index, category_id in enumerate(data.category_ids)}
    dicts = {
        image["id"]: {
            "file_name": os.path.join(image_root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": [],
        }
        for image in data.images
    }
    for annotation in data.annotations:
        dicts[annotation["image_id"]]["annotations"].append(
            {
                "bbox": annotation["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": classes[annotation["category_id"]],
                "iscrowd": annotation["iscrowd"],
            }
        )
    logging.getLogger(__name__).info(
        f"{json_file}: {len(data.images)} images, {len(data.annotations)} annotations, "
        f"{len(classes)} categories"
    )
    return list(dicts.values())


def _ground_truth(data: CocoJson) -> COCO:
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": data.images,
        "categories": [
            {"id": i, "name": name} for i, name in zip(data.category_ids, data.category_names)
        ],
    }
    if data.has_annotations:
        coco.dataset["annotations"] = [
            {**annotation, "id": number} for number, annotation in enumerate(data.annotations, 1)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _has_fast_eval() -> bool:
    """Whether Detectron2 has its compiled evaluation."""
    try:
        from detectron2 import _C
    except ImportError:
        return False
    return hasattr(_C, "COCOevalEvaluateImages")


def _datasets_root() -> str:
    root = os.environ.get("DETECTRON2_DATASETS")
    return f"now {root!r}" if root else f"not set, hence {os.path.abspath('datasets')!r}"


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)


def _shorten(values: Iterable[Any], limit: int = 20) -> str:
    values = [str(value) for value in values]
    rest = f", ... ({len(values)} in all)" if len(values) > limit else ""
    return ", ".join(values[:limit]) + rest if values else "none"
