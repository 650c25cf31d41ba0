"""Evaluates weights on the test dataset of a config, and prints the table of AP.

    gfocal eval --weights output/mine/model_final.pth
    gfocal eval --config-file COCO-Detection/gfl_R_50_FPN_1x.py --weights gfl_R_50_FPN_1x.pth --fast
    gfocal eval --weights output/mine/model_final.pth --reliability
    gfocal eval --weights model.onnx
    gfocal eval --config-file C --resume model.test_score_thresh=0.1

Weights that a training left, and ONNX files of gfocal export, need no config. C is a file, or a
name of the package's configs (gfocal zoo lists them). The metrics are added to metrics.json in the
config's output folder. It is what gfocal train --eval-only does. With --reliability there are also
inference/reliability.json and reliability.png there: what scores and standard deviations are worth.
"""

import argparse
import re
import sys

from ..config import apply_overrides, load_config, model_zoo, set_reliability
from ..engine import launch
from ..engine.exported import evaluate_exported
from ..export.runtime import OnnxPredictor
from ..weights.description import KEY, described_config, description_of
from .common import (
    add_calibrated,
    add_fast,
    add_machines,
    add_model,
    add_overrides,
    check_model_arguments,
    exit_on_mistake,
    given_options,
    make_parser,
    parse_arguments,
)
from .train import check, run, set_up

# For a model of PyTorch alone.
_NOT_OF_ONNX = (
    *(
        "--resume",
        "--fast",
        "--calibrated",
        "--num-gpus",
        "--num-machines",
        "--machine-rank",
        "--dist-url",
    ),
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("what to evaluate")
    add_model(group)
    group.add_argument(
        "--resume", action="store_true", help="the last checkpoint in the output folder instead"
    )
    add_fast(group)
    add_calibrated(group)
    group.add_argument(
        "--reliability",
        action="store_true",
        help="measure scores and standard deviations too, as train.reliability=true does",
    )
    add_overrides(parser)
    add_machines(parser)
    args = parse_arguments(parser, argv)
    args.eval_only = True
    check_model_arguments(parser, args)
    if _is_onnx(args):
        _check_onnx(parser, args, argv)
    check(parser, args)
    return args


def _is_onnx(args: argparse.Namespace) -> bool:
    return (args.weights or "").lower().endswith(".onnx")


def _check_onnx(
    parser: argparse.ArgumentParser, args: argparse.Namespace, argv: list[str] | None
) -> None:
    wrong = sorted(given_options(parser, argv) & {*_NOT_OF_ONNX})
    wrong += [x for x in args.opts if re.match(r"[+~]*(model|MODEL)\b", x)]
    if wrong:
        parser.error(f"{args.weights} is an ONNX file, which takes no {', '.join(wrong)}")
    args.num_gpus = 0


@exit_on_mistake()
def _run_onnx(args: argparse.Namespace) -> None:
    predictor = OnnxPredictor(args.weights)
    if args.config_file:
        args.config_file = model_zoo.find_config(args.config_file)
        cfg = load_config(args.config_file)
    else:
        args.config_file = ""  # for Detectron2's default_setup
        description = description_of({KEY: predictor.card.description or None}, args.weights)
        cfg = described_config(description, args.weights, args.trust)
    cfg = apply_overrides(cfg, args.opts)
    if args.reliability:
        set_reliability(cfg)
    evaluate_exported(set_up(cfg, args), cfg, predictor)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if _is_onnx(args):
        _run_onnx(args)
    else:
        launch(run, args)
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.evaluate
    sys.exit(main())
