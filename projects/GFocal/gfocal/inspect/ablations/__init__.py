"""The paper's ablation tables: their rows as configs, their runs, and their results."""

from .report import index, plot, table_lines
from .runs import save_config, train
from .tables import METRICS, ON_SHAPES, TABLES, label, make_config, paper_of, rows

__all__ = [
    "METRICS",
    "ON_SHAPES",
    "TABLES",
    "index",
    "label",
    "make_config",
    "paper_of",
    "plot",
    "rows",
    "save_config",
    "table_lines",
    "train",
]
