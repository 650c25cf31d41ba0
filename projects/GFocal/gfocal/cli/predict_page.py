"""The page of gfocal predict --html: the detections over the images, in a browser."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ..data.images import as_rgb, read_image
from ..data.sides import unpack_sides
from ..engine.prediction import ImageFile
from ..inspect.page import PageBox, PageItem, fitted, write_page

__all__ = ["PredictionPage", "check_page"]


def check_page(path: str, overwrite: bool) -> None:
    """Makes the folder of a page, and refuses to replace a file.

    Raises:
        FileExistsError, IsADirectoryError: it is there; it is a folder.
        OSError: its folder cannot be made.
        ValueError: it does not end in .html.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(f"--html is {path!r}, a folder; expected a file, x.html")
    if not path.lower().endswith((".html", ".htm")):
        raise ValueError(f"--html is {path!r}; expected a file, x.html")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(f"--html is {path!r}, which is there; --overwrite replaces it")


class PredictionPage:
    """Takes the records of images, and writes the page of the first of them.

    Args:
        path: of the page.
        limit: so many images are on it.
        names: of each category id.
        read_format: in which the detector's images are read.
    """

    def __init__(self, path: str, limit: int, names: Mapping[int, str], read_format: str | None):
        self._path, self._limit = path, limit
        self._names, self._read_format = names, read_format
        self._records: list[tuple[ImageFile, dict[str, Any]]] = []
        self._count = 0

    def add(self, image: ImageFile, record: dict[str, Any]) -> None:
        """An image, as :func:`gfocal.engine.prediction.predict_files` gives it to ``each``."""
        self._count += 1
        if len(self._records) < self._limit:
            self._records.append((image, record))

    def write(self, title: str) -> str:
        """Writes the page.

        Returns:
            a sentence that says where it is, and how many images are on it.

        Raises:
            OSError, ValueError: it cannot be written; an image cannot be read any more.
        """
        shown, count = len(self._records), self._count
        about = f"{count} images" if shown == count else f"The first {shown} of {count} images"
        write_page(self._path, self._items(), title=title, note=f"{about}.")
        more = "" if shown == count else f"; --html-images {count} shows all"
        return f"look at {self._path}: {about[0].lower()}{about[1:]}{more}"

    def _items(self) -> Iterator[PageItem]:
        for image, record in self._records:
            pixels = read_image(image.path, self._read_format)
            picture, scale = fitted(as_rgb(pixels, self._read_format))
            boxes = [self._box(x, record.get("bins")) for x in record["detections"]]
            yield PageItem(picture, (0.0, 0.0), scale, os.path.basename(image.path), boxes)

    def _box(self, detection: dict[str, Any], bins: list[float] | None) -> PageBox:
        x, y, width, height = detection["bbox"]
        sides: dict[str, Any] = {}
        if bins is not None and "sides" in detection:
            found = unpack_sides(detection["sides"], bins)
            sides = {"probabilities": found.probabilities, "bin_edges": found.bin_edges}
        return PageBox(
            (x, y, x + width, y + height),
            "prediction",
            self._names[detection["category_id"]],
            detection["score"],
            detection.get("bbox_std"),
            **sides,
        )
