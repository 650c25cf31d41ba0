"""The tables' rows: a config of configs/ablations each, and the paper's result for it, if any."""

import functools
from pathlib import Path

from omegaconf import DictConfig

from ...config import model_zoo
from .transplant import transplanted

__all__ = [
    "METRICS",
    "TABLES",
    "is_of_a_paper",
    "label",
    "make_config",
    "paper_of",
    "rows",
    "run_folder",
    "small_of",
]

TABLES = {
    "1a": "separate, implicit and joint representation of quality",
    "1b": "QFL on other detectors",
    "1c": "beta of QFL",
    "2a": "representation of a box",
    "2b": "n, the number of bins",
    "2c": "delta, the width of a bin",
    "3": "QFL and DFL",
    "v2": "DGQP: its statistics, its width, and what trains it",
    "bins": "the bins of a side",
    "quality_loss": "the loss of the joint score",
    "assigner": "which locations are positive",
    "distillation": "teachers",
}
# The tables of no paper compare their rows with GFLV2 as published.
_BASELINE = "ablations/gflv2.py"
# Rows that are small detectors already: their teachers are models of the generated shapes.
_SMALL = "ablations/distillation/"
METRICS = ("AP", "AP50", "AP75")
# How rows of other detectors than GFL begin, and the name of their model in configs/common/models.
_DETECTORS = {"fovea": "fovea", "retinanet": "retinanet", "ssd": "ssd"}


def rows(table: str) -> list[str]:
    """Names of the table's configs, as model_zoo takes them. Tables of no paper begin with the
    baseline."""
    folder = Path(model_zoo.get_config_file(_BASELINE)).parent
    if is_of_a_paper(table):
        return sorted(f"ablations/table{table}/{p.name}" for p in folder.glob(f"table{table}/*.py"))
    return [_BASELINE, *sorted(f"ablations/{table}/{p.name}" for p in folder.glob(f"{table}/*.py"))]


def is_of_a_paper(table: str) -> bool:
    """Whether it is a table of GFLV1's paper, which are numbered."""
    return table[0].isdigit()


@functools.cache
def paper_of(row: str) -> dict:
    """The paper's result for a row: the config's ``paper``, or dashes if it has none."""
    return {name: "-" for name in METRICS} | dict(model_zoo.get_config(row).get("paper", {}))


def label(row: str) -> str:
    """The row's name in a table."""
    return Path(row).stem


def run_folder(row: str, dataset: str, max_iter: int, seed: int) -> Path:
    """Where a run lies below the output folder. A row of several tables has one folder."""
    table = "all" if row == _BASELINE else Path(row).parent.name.removeprefix("table")
    return Path(f"{table}_{dataset}_{max_iter}", label(row), f"seed{seed}")


def small_of(row: str) -> tuple[str, str]:
    """The configs of the row's detector: the model that the row changes, and the small detector of
    configs/quick_start that is made of the same model. (Rows of the table distillation have none.)
    """
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
            :func:`.transplant.transplanted`. Rows of the table distillation are small already.
        max_iter: iterations; None: as many as the config has.
        seed: of the training.
        folder: for the run.

    Raises:
        ValueError: the row is on the generated shapes alone.
    """
    cfg = model_zoo.get_config(row)
    cfg.pop("paper", None)
    is_small = row.startswith(_SMALL)
    if is_small and dataset != "shapes":
        raise ValueError(
            f"{row} is a small detector of the generated shapes; expected --dataset shapes "
            "(configs/distillation has detectors of COCO)"
        )
    if dataset == "shapes" and not is_small:
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
