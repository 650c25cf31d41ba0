"""Splitting a dataset, so that each image is judged by a detector that was not trained on it."""

import json
import os
from typing import Any, NamedTuple

import numpy as np

from .labels import Labels

__all__ = ["Fold", "fold_of_images", "write_folds"]

_SEED = 0


class Fold(NamedTuple):
    """A part of a dataset.

    Attributes:
        folder: where its files are.
        train_json: all other images.
        held_json: its images.
        image_ids: theirs.
    """

    folder: str
    train_json: str
    held_json: str
    image_ids: frozenset[Any]


def fold_of_images(image_ids: list[Any], count: int) -> dict[Any, int]:
    """The fold of each image: shuffled with the seed 0, then dealt out.

    Raises:
        ValueError: fewer than 2 folds, or fewer images than folds.
    """
    if not 2 <= count <= len(image_ids):
        raise ValueError(
            f"{count} folds of {len(image_ids)} images; expected 2 or more, each with one"
        )
    ids = sorted(image_ids)
    order = np.random.default_rng(_SEED).permutation(len(ids))
    return {ids[place]: number % count for number, place in enumerate(order)}


def write_folds(labels: Labels, folder: str, count: int) -> list[Fold]:
    """Writes FOLDER/foldK/train.json and held.json.

    Args:
        labels: of the dataset.
        folder: it is made.
        count: of folds.

    Raises:
        OSError: a file cannot be written.
        ValueError: see :func:`fold_of_images`.
    """
    fold_of = fold_of_images(list(labels.files), count)
    ret = []
    for number in range(count):
        place = os.path.join(folder, f"fold{number}")
        os.makedirs(place, exist_ok=True)
        held = frozenset(image for image, fold in fold_of.items() if fold == number)
        others = frozenset(fold_of) - held
        paths = [os.path.join(place, f"{name}.json") for name in ("train", "held")]
        for path, images in zip(paths, (others, held)):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(_part(labels.document, images), file)
        ret.append(Fold(place, paths[0], paths[1], held))
    return ret


def _part(document: dict[str, Any], images: frozenset[Any]) -> dict[str, Any]:
    return {
        **document,
        "images": [x for x in document["images"] if x["id"] in images],
        "annotations": [x for x in document["annotations"] if x["image_id"] in images],
    }
