"""Trains a detector from a LazyConfig (.py) or a yacs config (.yaml).

    gfocal train --config-file quick_start/shapes_gflv2.py
    gfocal train --config-file C --num-gpus 8 --resume train.output_dir=output/run
    torchrun --nproc-per-node 8 -m gfocal train --config-file C
    gfocal train --config-file C --eval-only --weights model_final.pth

C is a file, or a name of the package's configs (gfocal zoo lists them). Changes of the config are
key=value; for yacs also Detectron2's KEY VALUE pairs. They and the options stand in any order. A
machine without a GPU trains on its CPU by itself.
"""

import argparse
import sys

from detectron2.engine import default_setup
from detectron2.utils.comm import get_rank
from detectron2.utils.logger import setup_logger

from .._installed import MissingPackageError
from ..config import Config, model_zoo, set_reliability, set_weights
from ..engine import (
    BaseTrainer,
    check_config,
    config_settings,
    launch,
    load_config,
    set_device,
    trainer_class,
)
from ..weights import check_weights, find_config
from .common import (
    add_fast,
    add_machines,
    add_overrides,
    check_machines,
    exit_on_mistake,
    make_parser,
    parse_arguments,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    group = parser.add_argument_group("what to train")
    group.add_argument("--config-file", metavar="C", required=True, help="file, or name of the zoo")
    group.add_argument("--weights", metavar="W", help="to start from, in place of the config's")
    group.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in the output folder"
    )
    add_overrides(parser)
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--eval-only", action="store_true", help="don't train: evaluate, as gfocal eval does"
    )
    add_fast(group)
    add_machines(parser)
    parser.set_defaults(reliability=False, calibrated=False)  # options of gfocal eval
    args = parse_arguments(parser, argv)
    if args.fast and not args.eval_only:
        parser.error("--fast is for --eval-only; training has train.amp.enabled")
    check(parser, args)
    return args


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the command if options contradict each other, or the GPUs are not there."""
    if args.eval_only and args.resume and args.weights:
        parser.error("--resume evaluates the last checkpoint: expected it or --weights, not both")
    check_machines(parser, args)


def run(args: argparse.Namespace) -> None:
    """One process of the command: trains, or evaluates with ``--eval-only``.

    Raises:
        SystemExit: a mistake of the user's, found before the first iteration.
    """
    # TypeError is not among them: more often a new part is at fault than a config.
    mistakes = (ValueError, OSError, SyntaxError, MissingPackageError)
    with exit_on_mistake(mistakes, locate=True):
        trainer = _set_up(args)
    if trainer is not None:
        trainer.train()


def _set_up(args: argparse.Namespace) -> BaseTrainer | None:
    """The trainer, ready to start; None after an evaluation with ``--eval-only``."""
    cfg = _config(args)
    if args.reliability:
        set_reliability(cfg)
    cls = set_up(cfg, args)
    if args.eval_only:
        cls.evaluate(cfg, resume=args.resume, fast=args.fast, calibrated=args.calibrated)
        return None
    trainer = cls(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer


def set_up(cfg: Config, args: argparse.Namespace) -> type[BaseTrainer]:
    """Checks a config, makes its output folder and the loggers. Returns the trainer's class."""
    check_config(cfg)
    if args.num_gpus == 0:
        set_device(cfg, "cpu")
    default_setup(cfg, args)
    setup_logger(config_settings(cfg).output_dir, distributed_rank=get_rank(), name="gfocal")
    return trainer_class(cfg)


def _config(args: argparse.Namespace) -> Config:
    if args.config_file:
        args.config_file = model_zoo.find_config(args.config_file)
        cfg = load_config(args.config_file, args.opts)
        if args.weights:
            set_weights(cfg, check_weights(args.weights))
        return cfg
    args.config_file = ""  # for Detectron2's default_setup
    return find_config(None, args.weights, args.opts, args.trust)[0]


def main(argv: list[str] | None = None) -> int:
    launch(run, parse_args(argv))
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.train
    sys.exit(main())
