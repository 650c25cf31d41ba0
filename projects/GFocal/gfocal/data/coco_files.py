"""Datasets of one or several COCO jsons, or of none."""

from collections.abc import Sequence
from typing import Any

from .coco import register_coco_json
from .coco_json import coco_num_classes

__all__ = ["num_classes_of", "register_coco_jsons"]


def register_coco_jsons(
    name: str,
    *,
    json_file: str | Sequence[str],
    image_root: str | Sequence[str],
    same_categories_as: str | Sequence[str] | None = None,
    num_classes: int | None = None,
    on_invalid: str = "error",
    check: bool = True,
    optional: bool = False,
) -> str | list[str]:
    """Registers one dataset for each json. All must have the same categories.

    Args:
        name: of the dataset; with several jsons NAME_1, NAME_2, ...
        json_file: a json, or several.
        image_root: the folder of the images: one for all jsons, or one for each.
        same_categories_as: jsons, of which the first has the categories; by default the first of
            ``json_file``.
        num_classes, on_invalid, check: see :func:`gfocal.data.register_coco_json`.
        optional: without a json there is no dataset. Otherwise that is an error.

    Returns:
        The name, or a list of names.

    Raises:
        FileNotFoundError: a json or folder is not there.
        ValueError: another number of folders than of jsons, or what ``register_coco_json`` refuses.
    """
    files, folders = _listed(json_file), _listed(image_root)
    if optional and not any(files):
        return []
    common = _listed(same_categories_as or "")[0]
    options: dict[str, Any] = {"num_classes": num_classes, "on_invalid": on_invalid, "check": check}
    if len(files) == 1 and len(folders) == 1:
        return register_coco_json(
            name,
            json_file=files[0],
            image_root=folders[0],
            same_categories_as=common or None,
            **options,
        )
    if len(folders) == 1:
        folders = folders * len(files)
    if len(folders) != len(files):
        raise ValueError(
            f"dataset {name!r} has {len(files)} jsons and {len(folders)} folders of images; "
            "expected one folder for all, or one for each: "
            "'data.train_json=[a.json,b.json]' 'data.train_images=[a_images,b_images]'"
        )
    if repeated := {x for x in files if files.count(x) > 1}:
        raise ValueError(f"dataset {name!r}: a json is named twice: {', '.join(sorted(repeated))}")
    return [
        register_coco_json(
            f"{name}_{number}",
            json_file=file,
            image_root=folder,
            same_categories_as=common or files[0],
            **options,
        )
        for number, (file, folder) in enumerate(zip(files, folders), 1)
    ]


def num_classes_of(json_file: str | Sequence[str]) -> int:
    """:func:`gfocal.data.coco_num_classes` of a json, or of the first of several."""
    return coco_num_classes(_listed(json_file)[0])


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value) or [""]
