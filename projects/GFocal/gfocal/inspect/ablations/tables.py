"""The tables' rows: a config of configs/ablations each, and the paper's result for it."""

import functools
from pathlib import Path

from omegaconf import DictConfig

from ...config import model_zoo
from .transplant import transplanted

__all__ = ["METRICS", "TABLES", "label", "make_config", "paper_of", "rows", "small_of"]

TABLES = {
    "1a": "separate, implicit and joint representation of quality",
    "1b": "QFL on other detectors",
    "1c": "beta of QFL",
    "2a": "representation of a box",
    "2b": "n, the number of bins",
    "2c": "delta, the width of a bin",
    "3": "QFL and DFL",
}
METRICS = ("AP", "AP50", "AP75")
# How rows of other detectors than GFL begin, and the name of their model in configs/common/models.
_DETECTORS = {"fovea": "fovea", "retinanet": "retinanet", "ssd": "ssd"}


def rows(table: str) -> list[str]:
    """Names of the table's configs, as model_zoo takes them."""
    folder = Path(model_zoo.get_config_file("ablations/atss.py")).parent
    return sorted(f"ablations/table{table}/{p.name}" for p in folder.glob(f"table{table}/*.py"))


@functools.cache
def paper_of(row: str) -> dict:
    """The paper's result for a row: the config's ``paper``, or dashes if it has none."""
    return {name: "-" for name in METRICS} | dict(model_zoo.get_config(row).get("paper", {}))


def label(row: str) -> str:
    """The row's name in a table."""
    return Path(row).stem


def small_of(row: str) -> tuple[str, str]:
    """The configs of the row's detector: the model that the row changes, and the small detector of
    configs/quick_start that is made of the same model."""
    for start, detector in _DETECTORS.items():
        if label(row).startswith(start):
            return f"common/models/{detector}.py", f"quick_start/shapes_{detector}.py"
    return "common/models/gfl.py", "quick_start/shapes_gflv2.py"


def make_config(
    row: str, dataset: str, max_iter: int | None, seed: int, folder: Path
) -> DictConfig:
    """The row's config on a dataset.

    Args:
        row: see :func:`rows`.
        dataset: "coco" trains the row as it stands. "shapes" trains the small detector of
            :func:`small_of` with what the row changes of its model, see
            :func:`.transplant.transplanted`.
        max_iter: iterations; None: as many as the config has.
        seed: of the training.
        folder: for the run.
    """
    cfg = model_zoo.get_config(row)
    cfg.pop("paper", None)
    if dataset == "shapes":
        base, small = map(model_zoo.get_config, small_of(row))
        small.model = transplanted(cfg.model, base.model, small.model)
        cfg = small
    cfg.train.max_iter = max_iter or cfg.train.max_iter
    cfg.train.seed = seed
    cfg.train.eval_period = cfg.train.max_iter
    cfg.train.checkpointer.period = max(1, cfg.train.max_iter // 4)
    cfg.train.checkpointer.max_to_keep = 1
    cfg.train.output_dir = str(folder)
    return cfg
