"""Parts of the messages about datasets."""

import os
from collections.abc import Iterable
from typing import Any

__all__ = ["HOW_TO_POINT", "absolute_path", "shorten"]

# A hint for errors about a missing path, for every kind of config.
HOW_TO_POINT = (
    "For a dataset of your own use configs/quick_start/custom_coco.py with the overrides "
    "data.train_json=... data.train_images=... data.val_json=... data.val_images=..."
)


def absolute_path(path: str) -> str:
    """Returns the absolute path; a URL is returned as it is."""
    return path if "://" in path else os.path.abspath(path)


def shorten(values: Iterable[Any], limit: int = 20) -> str:
    """Returns the first values, and the number of all if there are more."""
    values = [str(value) for value in values]
    rest = f", ... ({len(values)} in all)" if len(values) > limit else ""
    return ", ".join(values[:limit]) + rest if values else "none"
