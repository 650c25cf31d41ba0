"""Evaluates weights on the test dataset of a config, and prints the table of AP.

    gfocal eval --weights output/mine/model_final.pth
    gfocal eval --config-file COCO-Detection/gfl_R_50_FPN_1x.py --weights gfl_R_50_FPN_1x.pth --fast
    gfocal eval --config-file C --resume model.test_score_thresh=0.1

Weights that a training left need no config. C is a file, or a name of the package's configs
(gfocal zoo lists them). The metrics are added to metrics.json in the config's output folder. It is
what gfocal train --eval-only does.
"""

import argparse
import sys

from ..engine import launch
from .common import (
    add_fast,
    add_machines,
    add_model,
    add_overrides,
    check_model_arguments,
    make_parser,
    parse_arguments,
)
from .train import check, run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("what to evaluate")
    add_model(group)
    group.add_argument(
        "--resume", action="store_true", help="the last checkpoint in the output folder instead"
    )
    add_fast(group)
    add_overrides(parser)
    add_machines(parser)
    args = parse_arguments(parser, argv)
    args.eval_only = True
    check_model_arguments(parser, args)
    check(parser, args)
    return args


def main(argv: list[str] | None = None) -> int:
    launch(run, parse_args(argv))
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.evaluate
    sys.exit(main())
