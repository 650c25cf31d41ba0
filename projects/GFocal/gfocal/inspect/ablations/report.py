"""The results of a table's runs, as markdown and as a picture; and the page of all tables."""

import statistics
from pathlib import Path

from matplotlib.figure import Figure

from .tables import METRICS, TABLES, label, paper_of, rows

__all__ = ["Results", "index", "plot", "table_lines"]

# {row: the result of each run: its seed, with METRICS or an "error"}.
Results = dict[str, list[dict]]


def table_lines(table: str, results: Results) -> list[str]:
    """Markdown: mean and standard deviation over seeds beside the paper's AP."""
    lines = [
        f"| Table {table}: {TABLES[table]} | seeds | AP | AP50 | AP75 | paper's AP on COCO |",
        "|---|---|---|---|---|---|",
    ]
    for row, runs in results.items():
        good = [result for result in runs if "error" not in result]
        cells = [_mean_and_spread([result[name] for result in good]) for name in METRICS]
        paper = paper_of(row)["AP"]
        lines.append(f"| {label(row)} | {len(good)} | {' | '.join(cells)} | {paper} |")
    for row, runs in results.items():
        for result in runs:
            if "error" in result:
                lines.append(f"\n{label(row)}, seed {result['seed']}, failed: {result['error']}")
    return lines


def _mean_and_spread(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def plot(table: str, dataset: str, results: Results, file: Path) -> None:
    """Each seed's AP, and beside it the paper's."""
    figure = Figure(figsize=(9, 1.2 + 0.4 * len(results)), layout="constrained")
    ours, paper = figure.subplots(1, 2, sharey=True)
    for axes in (ours, paper):
        axes.margins(0.08, 0.15)
    for y, (row, runs) in enumerate(results.items()):
        values = [result["AP"] for result in runs if "error" not in result]
        ours.plot(values, [y] * len(values), "o", color="tab:blue", alpha=0.5)
        if values:
            ours.plot(statistics.mean(values), y, "|", color="black", markersize=16)
        if paper_of(row)["AP"] != "-":
            paper.plot(paper_of(row)["AP"], y, "D", color="tab:orange")
    ours.set(xlabel=f"AP on {dataset}, a dot a seed", yticks=range(len(results)))
    ours.set_yticklabels([label(row) for row in results])
    ours.invert_yaxis()
    paper.set_xlabel("AP on COCO, the paper's")
    for axes in (ours, paper):
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle(f"Table {table}: {TABLES[table]}")
    figure.savefig(file, dpi=120)


def index() -> str:
    """configs/ablations/README.md."""
    lines = [
        "# Ablations",
        "",
        "Rows of the paper's tables (https://arxiv.org/abs/2006.04388, Sec. 4), a config each.",
        "The AP are the paper's, of ResNet-50 after 1x on COCO minival; none was measured here.",
        "Measured results are in [docs/ablations.md](../../docs/ablations.md).",
        "`gfocal ablate --index` wrote this page.",
    ]
    for table, title in TABLES.items():
        lines += [
            "",
            f"## Table {table}: {title}",
            "",
            "| config | paper's AP | AP50 | AP75 |",
            "|---|---|---|---|",
        ]
        for row in rows(table):
            paper = paper_of(row)
            values = " | ".join(str(paper[name]) for name in METRICS)
            lines.append(f"| [{label(row)}](table{table}/{Path(row).name}) | {values} |")
    return "\n".join(lines)
