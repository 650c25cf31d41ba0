"""Trains the rows of one of the paper's ablation tables under one budget, and writes the table.

    python tools/ablate.py --table 3 --dataset shapes --seeds 3 --max-iter 1200
    python tools/ablate.py --index > configs/ablations/README.md

A row is a config of configs/ablations. With --dataset shapes its quality predictor, box
representation, matcher, anchors' offset and criterion go into the small detector of
configs/quick_start/shapes_gflv2.py; with --dataset coco it is trained as it stands. The same
command again goes on where it was stopped. OUT/TABLE_DATASET_ITERATIONS gets a folder for each run,
table.md, table.json and table.png; a row that failed is named there.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig
from tqdm import tqdm

from gfocal import model_zoo

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
# Not in table 1b, whose rows are another detector.
ON_SHAPES = [table for table in TABLES if table != "1b"]


def rows(table: str) -> list[str]:
    """Names of the table's configs, as model_zoo takes them."""
    folder = Path(model_zoo.get_config_file("ablations/atss.py")).parent
    return sorted(f"ablations/table{table}/{p.name}" for p in folder.glob(f"table{table}/*.py"))


def paper_of(row: str) -> dict:
    """What the paper reports for a row: the config's ``paper``, or dashes where it has none."""
    return {name: "-" for name in METRICS} | dict(model_zoo.get_config(row).get("paper", {}))


def label(row: str) -> str:
    return Path(row).stem


def make_config(
    row: str, dataset: str, max_iter: int | None, seed: int, folder: Path
) -> DictConfig:
    """The row's config on the dataset, trained for ``max_iter`` iterations (None: its own)."""
    cfg = model_zoo.get_config(row)
    cfg.pop("paper", None)
    if dataset == "shapes":
        parts, cfg = cfg.model, model_zoo.get_config("quick_start/shapes_gflv2.py")
        cfg.model.head.quality_predictor = parts.head.quality_predictor
        cfg.model.head.box_representation = parts.head.box_representation
        cfg.model.anchor_generator.offset = parts.anchor_generator.offset
        cfg.model.matcher, cfg.model.criterion = parts.matcher, parts.criterion
    cfg.train.max_iter = max_iter or cfg.train.max_iter
    cfg.train.seed = seed
    cfg.train.eval_period = cfg.train.max_iter
    cfg.train.checkpointer.period = max(1, cfg.train.max_iter // 4)
    cfg.train.checkpointer.max_to_keep = 1
    cfg.train.output_dir = str(folder)
    return cfg


def measured(folder: Path, max_iter: int) -> dict | None:
    """What a finished run's metrics.json says of its last iteration."""
    file = folder / "metrics.json"
    for line in reversed(file.read_text().splitlines() if file.exists() else []):
        try:
            values = json.loads(line)
        except json.JSONDecodeError:  # the line that a kill cut short
            continue
        if "bbox/AP" in values and values["iteration"] >= max_iter - 1:
            return {name: values[f"bbox/{name}"] for name in METRICS}
    return None


def iteration(folder: Path) -> int:
    file = folder / "metrics.json"
    found = re.findall(r'"iteration": (\d+)', file.read_text()) if file.exists() else []
    return int(found[-1]) + 1 if found else 0


def run(cfg: DictConfig, options: list[str], bar: tqdm) -> dict:
    """Trains a row unless it is there; its metrics, or {"error": the last line of its log}."""
    folder = Path(cfg.train.output_dir)
    result = measured(folder, cfg.train.max_iter)
    if result is None:
        command = [sys.executable, str(Path(__file__).with_name("train_net.py")), "--resume"]
        command += ["--config-file", str(folder / "run.yaml"), *options]
        before = bar.n
        with open(folder / "output.txt", "a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            try:
                while process.poll() is None:
                    time.sleep(1)
                    bar.update(before + min(iteration(folder), cfg.train.max_iter) - bar.n)
            finally:
                process.terminate()
        result = measured(folder, cfg.train.max_iter)
        bar.update(before - bar.n)
    bar.update(cfg.train.max_iter)
    if result is None:
        lines = (folder / "output.txt").read_text().strip().splitlines()
        return {"error": lines[-1] if lines else f"exit code {process.returncode}"}
    return result


def save_config(cfg: DictConfig) -> None:
    """Writes run.yaml, or makes sure that the folder's runs are of this config.

    Raises:
        ValueError: if they are not.
    """
    folder = Path(cfg.train.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "run.yaml"
    new = file.with_suffix(".new.yaml")
    LazyConfig.save(cfg, str(new))
    if file.exists() and file.read_text() != new.read_text():
        raise ValueError(
            f"{folder} holds a run of another config, compare run.yaml with {new.name}; "
            "remove the folder or choose another --output"
        )
    new.replace(file)


def table_lines(table: str, results: dict[str, list[dict]]) -> list[str]:
    """Markdown: mean and standard deviation over seeds beside the paper's AP."""
    lines = [
        f"| Table {table}: {TABLES[table]} | seeds | AP | AP50 | AP75 | paper's AP on COCO |",
        "|---|---|---|---|---|---|",
    ]
    for row, runs in results.items():
        good = [result for result in runs if "error" not in result]
        cells = [mean_and_spread([result[name] for result in good]) for name in METRICS]
        paper = paper_of(row)["AP"]
        lines.append(f"| {label(row)} | {len(good)} | {' | '.join(cells)} | {paper} |")
    for row, runs in results.items():
        for result in runs:
            if "error" in result:
                lines.append(f"\n{label(row)}, seed {result['seed']}, failed: {result['error']}")
    return lines


def mean_and_spread(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def plot(table: str, dataset: str, results: dict[str, list[dict]], file: Path) -> None:
    """Each seed's AP, and beside it the paper's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (ours, paper) = pyplot.subplots(
        1, 2, sharey=True, figsize=(9, 1.2 + 0.4 * len(results)), layout="constrained"
    )
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
    pyplot.close(figure)


def index() -> str:
    """configs/ablations/README.md."""
    lines = [
        "# Ablations",
        "",
        "Rows of the paper's tables (https://arxiv.org/abs/2006.04388, Sec. 4), a config each.",
        "The AP are the paper's, of ResNet-50 after 1x on COCO minival; none was measured here.",
        "What was is in [docs/ablations.md](../../docs/ablations.md).",
        "`python tools/ablate.py --index` wrote this page.",
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


def main(args: argparse.Namespace) -> int:
    """Returns the number of runs that failed."""
    if args.index:
        print(index())
        return 0
    results: dict[str, list[dict]] = {row: [] for row in rows(args.table)}
    configs = {}
    root = None
    for seed in range(args.seeds):
        for row in results:
            cfg = make_config(row, args.dataset, args.max_iter, seed, Path())
            root = Path(args.output) / f"{args.table}_{args.dataset}_{cfg.train.max_iter}"
            cfg.train.output_dir = str(root / label(row) / f"seed{seed}")
            save_config(cfg)
            configs[row, seed] = cfg
    options = [] if args.num_gpus is None else ["--num-gpus", str(args.num_gpus)]
    total = sum(cfg.train.max_iter for cfg in configs.values())
    with tqdm(total=total, unit="it", smoothing=0.05) as bar:
        for (row, seed), cfg in configs.items():
            bar.set_description(f"{label(row)}, seed {seed}")
            result = run(cfg, options, bar)
            results[row].append({"seed": seed, **result})
            tqdm.write(f"{label(row)}, seed {seed}: {result}")
            lines = table_lines(args.table, results)
            (root / "table.md").write_text("\n".join(lines) + "\n")
            (root / "table.json").write_text(json.dumps(results, indent=1) + "\n")
            plot(args.table, args.dataset, results, root / "table.png")
    print("\n".join(lines))
    print(f"\nin {root}: table.md, table.json, table.png")
    return sum("error" in result for runs in results.values() for result in runs)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=TABLES)
    parser.add_argument("--dataset", choices=["shapes", "coco"], default="shapes")
    parser.add_argument("--max-iter", type=int, help="of each run (default: the config's)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row (default 3)")
    parser.add_argument("--output", default="output/ablations", metavar="OUT")
    parser.add_argument("--num-gpus", type=int, help="as of train_net.py")
    parser.add_argument("--index", action="store_true", help="print configs/ablations/README.md")
    args = parser.parse_args(argv)
    if (args.table is None) != args.index:
        parser.error("expected either --table or --index")
    if args.seeds < 1 or (args.max_iter is not None and args.max_iter < 1):
        parser.error("--seeds and --max-iter: expected at least 1")
    if args.dataset == "shapes" and args.table not in (*ON_SHAPES, None):
        parser.error(f"--dataset shapes has a small model for tables {', '.join(ON_SHAPES)} only")
    return args


if __name__ == "__main__":
    try:
        sys.exit(min(main(parse_args()), 1))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
