"""Times the package beside the straightforward formulation of the papers, in one run.

    gfocal benchmark matcher
    gfocal benchmark train-step --device cuda --amp --json times.json

The straightforward formulation is benchmarks/straightforward.py: every box with every anchor, dense
labels, everything decoded. Images have 800 x 1344 px and 80 classes, networks a ResNet-50. Times
are medians of --repeat runs. MB are the tensors that a call holds at its peak beyond its inputs.
"""

import argparse
import functools
import json
import sys
from pathlib import Path

import torch

# benchmarks/ at the top of the checkout: setup.py ships it as gfocal.benchmarks.
from ..benchmarks.harness import Benchmark, machine
from ..benchmarks.tasks import TASKS, Settings
from .common import exit_on_mistake, make_parser, parse_arguments


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--repeat", type=int, default=7, help="runs of each (default 7)")
    parser.add_argument(
        "--batch",
        type=int,
        help="images of inference, export (1), train-step, teacher (2), ssd (8)",
    )
    parser.add_argument("--amp", action="store_true", help="train-step in mixed precision")
    parser.add_argument("--compile", action="store_true", help="inference with torch.compile too")
    args = parse_arguments(parser, argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no CUDA device here")
    if args.device == "cuda" and args.task == "export":
        parser.error("--device cuda: the files of export are timed on the CPU")
    if args.repeat < 1 or (args.batch is not None and args.batch < 1):
        parser.error("--repeat and --batch: expected at least 1")
    return args


def run(args: argparse.Namespace) -> list[dict]:
    """Runs the task; returns the rows of its table."""
    report = functools.partial(print, flush=True)
    bench = Benchmark(args.device, args.repeat, report)
    report(machine(bench.device))
    TASKS[args.task](bench, Settings(args.batch, args.amp, args.compile))
    if args.json:
        content = {"machine": machine(bench.device), "task": args.task, "rows": bench.rows}
        Path(args.json).write_text(json.dumps(content, indent=1) + "\n")
    return bench.rows


@exit_on_mistake((OSError,))
def main(argv: list[str] | None = None) -> int:
    run(parse_args(argv))
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.benchmark
    sys.exit(main())
