"""The files of JSON lines that a prediction leaves while it runs, and what becomes of them.

Only where the lines are is in memory, not the detections.
"""

import contextlib
import glob
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

__all__ = ["ImageFile", "Lines", "PredictionSettings"]

# How the line of an image begins. The rest, with the detections, is read when they are needed.
_HEAD = re.compile(rb'\{"index": (\d+), ("error")?')


class ImageFile(NamedTuple):
    """An image to look at.

    Attributes:
        id: of the results, unique.
        path: of the file.
    """

    id: Any
    path: str


@dataclass(frozen=True)
class PredictionSettings:
    """What the numbers of a run depend on. A run goes on with the same settings only.

    Attributes:
        weights: a digest of the file.
        config: a digest of the config.
        images: a digest of ids and paths.
        batch_size: images a batch.
        confidence: lowest score that is written.
        fast: whether the model was optimized.
        category_ids: of each class.
        calibrated: whether scores and standard deviations are.
        distributions: whether the records of images have the distributions of the sides.
    """

    weights: str
    config: str
    images: str
    batch_size: int
    confidence: float
    fast: bool
    category_ids: tuple[int, ...]
    calibrated: bool = False
    distributions: bool = False


class _Place(NamedTuple):
    """Where the line of an image is: the byte at which it starts, and whether it is an error's."""

    path: str
    offset: int
    is_error: bool


@contextlib.contextmanager
def _written_at_once(path: str) -> Iterator[Any]:
    """A file that is there only when all of it is written."""
    with open(f"{path}.part", "w") as file:
        yield file
    os.replace(f"{path}.part", path)


class Lines:
    """The files of JSON lines beside an output: one for each process of a run. Their first line
    holds the settings, each other an image."""

    def __init__(self, output: str, settings: PredictionSettings):
        self._output = output
        self._settings = json.loads(json.dumps(asdict(settings)))
        self._first = json.dumps({"settings": self._settings})

    def read(self) -> set[int]:
        """The indices of the images that are done.

        Raises:
            ValueError: a file is of a run with other settings, or damaged.
        """
        return {index for index, place in self._places().items() if not place.is_error}

    @contextlib.contextmanager
    def open(self, rank: int) -> Iterator[Any]:
        """The file that a process adds to."""
        path = f"{self._output}.part{rank}.jsonl"
        self._cut_half_a_line(path)
        with open(path, "a") as file:
            if file.tell() == 0:
                file.write(f"{self._first}\n")
            yield file

    def add(self, file: Any, records: list[dict[str, Any]]) -> None:
        """Writes the images of a batch."""
        file.write("".join(f"{json.dumps(record)}\n" for record in records))
        file.flush()

    def finish(
        self,
        images: Sequence[ImageFile],
        categories: Sequence[dict[str, Any]] | None,
        each: Callable[[ImageFile, dict[str, Any]], None] | None = None,
    ) -> list[str]:
        """Writes the output, and removes the lines unless an image is still to be read. ``each`` is
        called with every image that was read, and its record."""
        problems: list[str] = []
        table: list[dict[str, Any]] = []
        with _written_at_once(self._output) as file:
            separator = "["
            for image, record in zip(images, self._in_order(len(images))):
                if "error" in record:
                    problems.append(record["error"])
                    continue
                if categories is not None:
                    size = {"height": record["height"], "width": record["width"]}
                    table.append({"id": image.id, "file_name": image.path, **size})
                if each is not None:
                    each(image, record)
                for detection in record["detections"]:
                    result = {key: x for key, x in detection.items() if key != "sides"}
                    line = json.dumps({"image_id": image.id, **result})
                    file.write(f"{separator}{line}")
                    separator = ",\n"
            file.write("]\n" if separator != "[" else "[]\n")
        if categories is not None:
            with _written_at_once(f"{os.path.splitext(self._output)[0]}.images.json") as file:
                json.dump({"images": table, "categories": list(categories)}, file, indent=1)
        if not problems:
            for path in self._files():
                os.remove(path)
        return problems

    def _files(self) -> list[str]:
        return sorted(glob.glob(f"{glob.escape(self._output)}.part*.jsonl"))

    def _in_order(self, count: int) -> Iterator[dict[str, Any]]:
        """The records of images 0, 1, ...; one at a time is in memory."""
        places = self._places()
        with contextlib.ExitStack() as stack:
            files = {path: stack.enter_context(open(path, "rb")) for path in self._files()}
            for index in range(count):
                file = files[places[index].path]
                file.seek(places[index].offset)
                yield json.loads(file.readline())

    def _places(self) -> dict[int, _Place]:
        """Where the line of each image is. Of several lines the last that has no error counts."""
        places: dict[int, _Place] = {}
        for path in self._files():
            with open(path, "rb") as file:
                first = file.readline()
                if first.endswith(b"\n"):  # after a kill the last line may be a half
                    self._check(path, first)
                offset = file.tell()
                while (line := file.readline()).endswith(b"\n"):
                    if (head := _HEAD.match(line)) is None:
                        raise ValueError(f"{path} has a line that is no image's, at byte {offset}")
                    index, place = int(head[1]), _Place(path, offset, head[2] is not None)
                    if not place.is_error or index not in places:
                        places[index] = place
                    offset = file.tell()
        return places

    def _check(self, path: str, first: bytes) -> None:
        try:
            before = json.loads(first)["settings"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is no file of a prediction that was interrupted") from None
        other = [key for key, x in self._settings.items() if before.get(key) != x]
        if other:
            raise ValueError(
                f"{path} is of an interrupted prediction with other {', '.join(other)}. Go on with "
                "the same, give another output, or move the file away to start anew"
            )

    def _cut_half_a_line(self, path: str) -> None:
        if not os.path.isfile(path):
            return
        with open(path, "rb+") as file:
            end = 0
            for line in file:
                end += len(line) if line.endswith(b"\n") else 0
            file.truncate(end)
