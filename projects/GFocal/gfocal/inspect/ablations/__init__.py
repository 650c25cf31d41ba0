"""The paper's ablation tables: their rows as configs, their runs, and their results."""

from .report import index, plot, table_lines
from .runs import save_config, train
from .tables import METRICS, TABLES, label, make_config, paper_of, rows, small_of
from .transplant import transplanted

__all__ = [
    "METRICS",
    "TABLES",
    "index",
    "label",
    "make_config",
    "paper_of",
    "plot",
    "rows",
    "save_config",
    "small_of",
    "table_lines",
    "train",
    "transplanted",
]
