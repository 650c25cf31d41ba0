"""The results of a table's runs, as markdown and as a picture; and the page of all tables."""

import ast
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ...config import model_zoo
from .tables import METRICS, TABLES, is_of_a_paper, label, paper_of, rows

__all__ = ["Results", "index", "plot", "table_lines"]

# {row: the result of each run: its seed, with METRICS or an "error"}.
Results = dict[str, list[dict]]


def table_lines(table: str, results: Results) -> list[str]:
    """Markdown: mean and standard deviation over seeds, in a paper's table beside its AP."""
    paper = ["paper's AP on COCO"] if is_of_a_paper(table) else []
    names = [_title(table), "seeds", *METRICS, *paper]
    lines = [_line(names), "|" + "---|" * len(names)]
    for row, runs in results.items():
        good = [result for result in runs if "error" not in result]
        cells = [_mean_and_spread([result[name] for result in good]) for name in METRICS]
        lines.append(_line([label(row), len(good), *cells, *[paper_of(row)["AP"] for _ in paper]]))
    for row, runs in results.items():
        for result in runs:
            if "error" in result:
                lines.append(f"\n{label(row)}, seed {result['seed']}, failed: {result['error']}")
    return lines


def _title(table: str) -> str:
    name = f"Table {table}" if is_of_a_paper(table) else table
    return f"{name}: {TABLES[table]}"


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _mean_and_spread(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def plot(table: str, dataset: str, results: Results, file: Path) -> None:
    """Each seed's AP, and in a paper's table beside it the paper's."""
    figure = Figure(figsize=(9, 1.2 + 0.4 * len(results)), layout="constrained")
    panels = figure.subplots(1, 1 + is_of_a_paper(table), sharey=True, squeeze=False)[0]
    ours, *others = panels
    for axes in panels:
        axes.margins(0.08, 0.15)
    for y, (row, runs) in enumerate(results.items()):
        values = [result["AP"] for result in runs if "error" not in result]
        ours.plot(values, [y] * len(values), "o", color="tab:blue", alpha=0.5)
        if values:
            ours.plot(statistics.mean(values), y, "|", color="black", markersize=16)
        for axes in others:
            if paper_of(row)["AP"] != "-":
                axes.plot(paper_of(row)["AP"], y, "D", color="tab:orange")
    ours.set(xlabel=f"AP on {dataset}, a dot a seed", yticks=range(len(results)))
    ours.set_yticklabels([label(row) for row in results])
    ours.invert_yaxis()
    for axes in others:
        axes.set_xlabel("AP on COCO, the paper's")
    for axes in panels:
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle(_title(table))
    figure.savefig(file, dpi=120)


def index() -> str:
    """configs/ablations/README.md."""
    lines = [
        "# Ablations",
        "",
        "Rows of ablation tables, a config each, of ResNet-50 after 1x on COCO.",
        "The numbered tables are the paper's (https://arxiv.org/abs/2006.04388, Sec. 4), with its",
        "AP on COCO minival; none was measured here. The others are ours.",
        "Measured results are in [docs/ablations.md](../../docs/ablations.md).",
        "`gfocal ablate --index` wrote this page.",
    ]
    for table in TABLES:
        lines += ["", f"## {_title(table)}", ""]
        paper = ["paper's AP", "AP50", "AP75"] if is_of_a_paper(table) else ["what it is"]
        lines += [_line(["config", *paper]), "|" + "---|" * (1 + len(paper))]
        for row in rows(table):
            link = f"[{label(row)}]({row.removeprefix('ablations/')})"
            cells = [paper_of(row)[name] for name in METRICS] if len(paper) > 1 else [_about(row)]
            lines.append(_line([link, *cells]))
    return "\n".join(lines)


def _about(row: str) -> str:
    """The first sentence of a config's docstring."""
    text = ast.get_docstring(ast.parse(Path(model_zoo.get_config_file(row)).read_text())) or ""
    return " ".join(text.split()).partition(". ")[0].removesuffix(".")
