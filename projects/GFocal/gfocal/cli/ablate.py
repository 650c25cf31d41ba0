"""Trains the rows of an ablation table under one budget, and writes the table.

    gfocal ablate --table 3 --dataset shapes --seeds 3 --max-iter 1200
    gfocal ablate --table assigner --max-iter 600
    gfocal ablate --index > configs/ablations/README.md

A row is a config of configs/ablations. With --dataset coco it is trained as it is. With --dataset
shapes, what it changes of its detector's model (configs/common/models) is changed in the small one
of configs/quick_start (shapes_gflv2, shapes_retinanet, shapes_fovea, shapes_ssd). The same command
again continues where it was stopped. OUT/TABLE_DATASET_ITERATIONS gets a folder for each run,
table.md, table.json and table.png. They also name the rows that failed. The baseline that the
tables of no paper share lies in OUT/all_DATASET_ITERATIONS, and is trained once.
"""

import argparse
import functools
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from ..inspect.ablations import (
    TABLES,
    index,
    label,
    make_config,
    plot,
    rows,
    run_folder,
    save_config,
    table_lines,
    train,
)
from .common import exit_on_mistake, make_parser, parse_arguments


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--table", choices=TABLES)
    parser.add_argument("--dataset", choices=["shapes", "coco"], default="shapes")
    parser.add_argument("--max-iter", type=int, help="of each run (default: the config's)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row (default 3)")
    parser.add_argument("--output", default="output/ablations", metavar="OUT")
    parser.add_argument("--num-gpus", type=int, help="as of gfocal train")
    parser.add_argument("--index", action="store_true", help="print configs/ablations/README.md")
    args = parse_arguments(parser, argv)
    if (args.table is None) != args.index:
        parser.error("expected either --table or --index")
    if args.seeds < 1 or (args.max_iter is not None and args.max_iter < 1):
        parser.error("--seeds and --max-iter: expected at least 1")
    return args


def run(args: argparse.Namespace) -> int:
    """Trains the table's rows; returns the number of runs that failed."""
    configs, root = _configs(args)
    results: dict[str, list[dict]] = {row: [] for row, _ in configs}
    command = [sys.executable, "-m", "gfocal.cli.train"]
    command += [] if args.num_gpus is None else ["--num-gpus", str(args.num_gpus)]
    total = sum(cfg.train.max_iter for cfg in configs.values())
    with tqdm(total=total, unit="it", smoothing=0.05) as bar:
        for (row, seed), cfg in configs.items():
            bar.set_description(f"{label(row)}, seed {seed}")
            before = bar.n
            result = train(cfg, command, functools.partial(_advance, bar, before))
            _advance(bar, before, cfg.train.max_iter)
            results[row].append({"seed": seed, **result})
            tqdm.write(f"{label(row)}, seed {seed}: {result}")
            lines = table_lines(args.table, results)
            (root / "table.md").write_text("\n".join(lines) + "\n")
            (root / "table.json").write_text(json.dumps(results, indent=1) + "\n")
            plot(args.table, args.dataset, results, root / "table.png")
    print("\n".join(lines))
    print(f"\nin {root}: table.md, table.json, table.png")
    return sum("error" in result for runs in results.values() for result in runs)


def _advance(bar: tqdm, before: int, done: int) -> None:
    """Moves the bar to what a run has done, and the runs before it."""
    bar.update(before + done - bar.n)


def _configs(args: argparse.Namespace) -> tuple[dict[tuple[str, int], DictConfig], Path]:
    """The saved config of each row and seed, and the folder of the table."""
    configs: dict[tuple[str, int], DictConfig] = {}
    root = Path(args.output)
    for seed in range(args.seeds):
        for row in rows(args.table):
            cfg = make_config(row, args.dataset, args.max_iter, seed, Path())
            root = Path(args.output) / f"{args.table}_{args.dataset}_{cfg.train.max_iter}"
            folder = run_folder(row, args.dataset, cfg.train.max_iter, seed)
            cfg.train.output_dir = str(Path(args.output) / folder)
            save_config(cfg)
            configs[row, seed] = cfg
    _check_teachers(configs.values())
    return configs, root


def _check_teachers(configs: Iterable[DictConfig]) -> None:
    """Raises FileNotFoundError before the first run if one would end for want of its teacher."""
    missing: dict[str, str] = {}
    for cfg in configs:
        weights = OmegaConf.select(cfg, "model.teacher.weights")
        if weights and "://" not in weights and not Path(weights).is_file():
            missing[weights] = cfg.model.teacher.config
    if missing:
        commands = [f"gfocal train --config-file {config}" for config in missing.values()]
        raise FileNotFoundError(
            f"no weights of the teachers {', '.join(missing)} (working directory: {os.getcwd()}); "
            f"train them first: {', '.join(commands)}"
        )


@exit_on_mistake()
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.index:
        print(index())
        return 0
    return min(run(args), 1)


if __name__ == "__main__":  # python -m gfocal.cli.ablate
    sys.exit(main())
