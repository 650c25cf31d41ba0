"""Ablation tables: their rows as configs, their runs, and their results."""

from .report import index, plot, table_lines
from .runs import save_config, train
from .tables import (
    METRICS,
    TABLES,
    is_of_a_paper,
    label,
    make_config,
    paper_of,
    rows,
    run_folder,
    small_of,
)
from .transplant import transplanted

__all__ = [
    "METRICS",
    "TABLES",
    "index",
    "is_of_a_paper",
    "label",
    "make_config",
    "paper_of",
    "plot",
    "rows",
    "run_folder",
    "save_config",
    "small_of",
    "table_lines",
    "train",
    "transplanted",
]
