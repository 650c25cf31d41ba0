"""COCO-format datasets in Detectron2's catalogs, and their dataset dicts.

Units: boxes are XYWH, in pixels.
"""

import dataclasses
import difflib
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
)
from detectron2.utils.file_io import PathManager

from .._moved import moved_names
from .coco_dicts import dataset_dicts
from .coco_json import (
    CocoJson,
    category_difference,
    read_categories,
    read_coco_json,
    survey_coco_json,
)
from .defects import Defects
from .dict_checks import dict_defects
from .mapper import check_crowds
from .messages import HOW_TO_POINT, absolute_path, shorten

__all__ = [
    "CocoLoader",
    "check_dataset_files",
    "checked_dicts",
    "dataset_names",
    "detection_dataset_dicts",
    "register_coco_json",
    "register_loader",
    "survey_dataset",
]

__getattr__ = moved_names(__name__)


def register_coco_json(
    name: str,
    *,
    json_file: str,
    image_root: str,
    num_classes: int | None = None,
    on_invalid: str = "error",
    same_categories_as: str | None = None,
    check: bool = True,
) -> str:
    """Registers a COCO json in DatasetCatalog and MetadataCatalog.

    The categories are read now. Images and annotations are read and checked when the dataset is
    loaded. The same call again changes nothing. A call with the same name and other files replaces
    the dataset.

    Args:
        name: the dataset's name.
        json_file: instances json. Its category ids may be any numbers, also with gaps.
        image_root: the folder that its file names are relative to.
        num_classes: if given, the json must have this number of categories.
        on_invalid: "error": an invalid image or annotation is an error; "drop": it is left out, in
            training and in evaluation, and counted by reason in the log.
        same_categories_as: another json, whose category ids and names must be the same.
        check: look at the header of each image file, and whether the boxes have another format.

    Returns:
        ``name``. So a LazyCall of this function can take the place of a dataset's name.

    Raises:
        FileNotFoundError: the json or the folder is not there.
        TypeError: a path is none.
        ValueError: a path was not given, the file is not a COCO json, the number of categories is
            another, the categories differ from ``same_categories_as``, or a dataset that was not
            registered here has the name.
    """
    if on_invalid not in ("error", "drop"):
        raise ValueError(f'on_invalid is {on_invalid!r}; expected "error" or "drop"')
    for key, value in (("json_file", json_file), ("image_root", image_root)):
        if not value:
            raise ValueError(f"dataset {name!r} has no {key}. {HOW_TO_POINT}")
        if not isinstance(value, (str, os.PathLike)):
            raise TypeError(
                f"dataset {name!r}: {key} is {value!r}; expected one path "
                "(gfocal.data.register_coco_jsons takes several)"
            )
    categories = read_categories(json_file)
    if not PathManager.isdir(image_root):
        raise FileNotFoundError(f"dataset {name!r}: no image folder {absolute_path(image_root)!r}")
    if num_classes is not None and num_classes != len(categories):
        raise ValueError(
            f"num_classes is {num_classes}, but {json_file} has {len(categories)} categories: "
            f"{shorten(categories.values())}"
        )
    if same_categories_as and read_categories(same_categories_as) != categories:
        raise ValueError(category_difference(json_file, same_categories_as))

    return register_loader(name, CocoLoader(json_file, image_root, on_invalid, check), categories)


@dataclasses.dataclass(frozen=True)
class CocoLoader:
    """Loads a dataset, when DatasetCatalog calls it.

    Attributes:
        json_file, image_root, on_invalid, check: see :func:`register_coco_json`.
        prepare: makes the files if they are not there yet.
    """

    json_file: str
    image_root: str
    on_invalid: str = "error"
    check: bool = True
    prepare: Callable[[], Any] | None = dataclasses.field(default=None, compare=False)

    def read(self, masks: bool = False) -> CocoJson:
        if self.prepare is not None:
            self.prepare()
        return read_coco_json(self.json_file, self.image_root, self.on_invalid, self.check, masks)

    def survey(self, masks: bool = False) -> Defects:
        """What is wrong with the dataset; nothing is left out. For ``gfocal check``.

        Raises:
            FileNotFoundError: no such json.
            ValueError: not a COCO json.
        """
        if self.prepare is not None:
            self.prepare()
        data, defects = survey_coco_json(self.json_file, self.image_root, self.check, masks)
        defects.on_invalid = self.on_invalid
        if not data.images and not defects.refused:
            defects.errors.append("no usable image")
        return defects

    def __call__(self) -> list[dict[str, Any]]:
        return dataset_dicts(self.read(), self.json_file, self.image_root, masks=True)

    def dicts(self, masks: bool) -> list[dict[str, Any]]:
        """The dataset dicts; with ``masks`` each object has one, without they have none."""
        return dataset_dicts(self.read(masks), self.json_file, self.image_root, masks)


def register_loader(name: str, loader: CocoLoader, categories: dict[int, str]) -> str:
    """Registers a dataset with known categories, {id: name} by ascending id.

    Returns:
        ``name``.

    Raises:
        ValueError: a dataset that was not registered here has the name.
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


def detection_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    crowds: str = "drop",
    check: bool = True,
    masks: bool = False,
) -> list[dict[str, Any]]:
    """Detectron2's ``get_detection_dataset_dicts``, with a check of the files and of the dicts.

    Args:
        names: registered datasets; a list may hold lists of them.
        filter_empty: leave out images without a box.
        crowds: as in the mapper, :class:`gfocal.data.DetectionMapper`. With "drop" a crowd does not
            count as a box; with "ignore" an image with crowds only stays.
        check: for a dataset that :func:`register_coco_json` does not know: look at the header of
            each image file, and whether the boxes have another format.
        masks: each object must have a mask. Without, those of a dataset of
            :func:`register_coco_json` are left out: they would fill the memory.

    Returns:
        Detectron2's dataset dicts.

    Raises:
        FileNotFoundError: a file of a dataset is not there. The message says how to name another.
        ValueError: no such dataset, one is named twice, no image is left, or ``crowds`` is neither.
    """
    check_crowds(crowds)
    names = dataset_names(names)
    if len(set(names)) < len(names):
        raise ValueError(f"a dataset is named twice: {names}")
    check_dataset_files(names)
    loaded = [checked_dicts(name, check, masks) for name in names]
    if not all(isinstance(x, list) for x in loaded):  # a torch dataset: newer Detectron2 takes it
        return get_detection_dataset_dicts(names, filter_empty=filter_empty)
    dicts = list(itertools.chain.from_iterable(loaded))
    reason = "all are empty" if dicts else "the dataset is empty"
    has_annotations = bool(dicts) and "annotations" in dicts[0]
    if filter_empty and has_annotations:
        count = len(dicts)
        if crowds == "ignore":
            dicts = [x for x in dicts if x.get("annotations", True)]
            logging.getLogger(__name__).info(f"Left out {count - len(dicts)} images without a box")
        else:
            dicts = filter_images_with_only_crowd_annotations(dicts)
    if dicts:
        if has_annotations:
            _print_classes(names, dicts)
        return dicts
    files = [MetadataCatalog.get(name).get("json_file", "no json") for name in names]
    where = ", ".join(f"{name} ({file})" for name, file in zip(names, files))
    no_crowd = " that is no crowd" * (crowds == "drop")
    what = "image with a box" + no_crowd if filter_empty else "image"
    raise ValueError(f"no {what} in {where or 'an empty list of datasets'}: {reason}")


def dataset_names(names: str | Sequence[Any]) -> list[str]:
    """Names of datasets in one flat list: a name, a list of names, or a list of such lists."""
    if isinstance(names, str):
        return [names]
    return [name for item in names for name in dataset_names(item)]


def survey_dataset(name: str, check: bool = True, masks: bool = False) -> Defects:
    """What is wrong with a registered dataset, in a table's form. For ``gfocal check``.

    Args:
        name: of the dataset.
        check, masks: as in :func:`detection_dataset_dicts`.

    Raises:
        FileNotFoundError: a file of the dataset is not there.
        ValueError: no such dataset, or its json is none of COCO's.
    """
    check_dataset_files([name])
    loader = DatasetCatalog[name]
    if isinstance(loader, CocoLoader):
        return loader.survey(masks)
    return dict_defects(name, DatasetCatalog.get(name), _num_classes(name), check, masks)


def checked_dicts(name: str, check: bool, masks: bool = False) -> list[dict[str, Any]]:
    """The dicts of a dataset, whoever registered it; ``check`` and ``masks`` as above.

    Raises:
        ValueError: something is wrong with them.
    """
    loader = DatasetCatalog[name]
    if isinstance(loader, CocoLoader):
        return loader.dicts(masks)
    dicts = DatasetCatalog.get(name)
    if isinstance(dicts, list):
        defects = dict_defects(name, dicts, _num_classes(name), check, masks)
        defects.finish("error", how_to_drop="")
    return dicts


def _num_classes(name: str) -> int | None:
    classes = MetadataCatalog.get(name).get("thing_classes", None)
    return None if classes is None else len(classes)


def _print_classes(names: list[str], dicts: list[dict[str, Any]]) -> None:
    """Detectron2's table of the classes, if the datasets name them."""
    classes = [MetadataCatalog.get(name).get("thing_classes", None) for name in names]
    if None in classes:
        return
    if different := next((x for x in zip(names, classes) if x[1] != classes[0]), None):
        raise ValueError(
            f"the datasets {names[0]!r} and {different[0]!r} have different classes: "
            f"{shorten(classes[0])} / {shorten(different[1])}"
        )
    print_instances_class_histogram(dicts, classes[0])


def check_dataset_files(names: Iterable[str]) -> None:
    """Checks that datasets are registered, and that their json files and image folders exist.

    A dataset that is generated on first use is generated here.

    Raises:
        FileNotFoundError: one is not there. The message names the place and says how to change it.
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
                    f"dataset {name!r}: {key} {absolute_path(path)!r} is not there. Detectron2 "
                    "looks for the datasets that it knows below the folder named by the "
                    f"environment variable DETECTRON2_DATASETS ({_datasets_root()}); set it to the "
                    "folder that holds coco/annotations and coco/train2017, say. "
                    f"{HOW_TO_POINT}"
                )


def _datasets_root() -> str:
    root = os.environ.get("DETECTRON2_DATASETS")
    return f"now {root!r}" if root else f"not set, hence {os.path.abspath('datasets')!r}"
