"""metrics.json with one record an iteration, also after a resume or a new training."""

import json
import logging
import os
from typing import Any

from detectron2.utils.events import JSONWriter

__all__ = ["MetricsWriter"]


class MetricsWriter(JSONWriter):
    """Detectron2's JSONWriter, for a training that goes on where another run of it has written.

    Args:
        json_file: the file; new records are appended.
    """

    _file_handle: Any  # of Detectron2's

    def __init__(self, json_file: str):
        super().__init__(json_file)
        self._path = json_file

    def begin(self, iteration: int) -> None:
        """Makes room for the records from an iteration on. Later ones of an earlier run, and a line
        that a kill cut short, are dropped: they are written again. The file is whole at any moment.

        The records of another training, which started in the same folder, are moved to
        metrics.json.old, metrics.json.old2, ...

        Args:
            iteration: the first that is written, 0 for a new training.
        """
        if "://" in self._path or os.path.getsize(self._path) == 0:
            return
        self._file_handle.close()
        if iteration == 0:
            self._move()
        else:
            self._keep_before(iteration)
        self._file_handle = open(self._path, "a")  # noqa: SIM115  (close() closes it)

    def _move(self) -> None:
        name, number = f"{self._path}.old", 1
        while os.path.exists(name):
            number += 1
            name = f"{self._path}.old{number}"
        os.replace(self._path, name)
        logging.getLogger(__name__).warning(
            f"{self._path} had records of an earlier run, which this training does not resume. "
            f"They are now in {name}"
        )

    def _keep_before(self, iteration: int) -> None:
        with open(self._path) as file:
            lines = file.readlines()
        kept = {line: _iteration(line) for line in lines}
        kept = {line: x for line, x in kept.items() if x is not None and x < iteration}
        self._last_write = max(kept.values(), default=-1)
        part = f"{self._path}.part"
        with open(part, "w") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self._path)


def _iteration(line: str) -> Any:
    """The iteration of a record; None if the line is none."""
    try:
        return json.loads(line)["iteration"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
