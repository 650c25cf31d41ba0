"""Trainings in processes of their own, and what they leave behind."""

import json
import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
# How fast it went is no result; neither is the time that was left.
TIMES = {"time", "data_time", "rank_data_time", "eta_seconds"}


def environment() -> dict[str, str]:
    """For a process that has the package and the tests, and one thread."""
    paths = [str(ROOT), str(ROOT / "projects/GFocal"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def lines(folder: Path) -> list[str]:
    """Of metrics.json, as far as it is written."""
    path = folder / "metrics.json"
    return path.read_text().splitlines() if path.exists() else []


def records(folder: Path) -> list[dict[str, float]]:
    """What each line of metrics.json says."""
    return [json.loads(line) for line in lines(folder)]


def results(folder: Path) -> dict[int, dict[str, float]]:
    """What metrics.json says of each iteration; none comes twice, and they are in order."""
    found: dict[int, dict[str, float]] = {}
    for line in lines(folder):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line that was being written when the process was killed
        values = {k: v for k, v in record.items() if k not in TIMES | {"iteration"}}
        assert record["iteration"] > max(found, default=-1), record
        found[record["iteration"]] = values
    return found
