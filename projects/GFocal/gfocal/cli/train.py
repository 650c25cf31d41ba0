"""Trains or evaluates a detector from a LazyConfig (.py) or a yacs config (.yaml).

    python tools/train_net.py --config-file configs/quick_start/shapes_gflv2.py
    python tools/train_net.py --config-file C --num-gpus 8 --resume train.output_dir=output/run
    torchrun --nproc-per-node 8 tools/train_net.py --config-file C
    python tools/train_net.py --config-file C --eval-only train.init_checkpoint=model_final.pth

Overrides are key=value; for yacs also Detectron2's KEY VALUE pairs. --num-gpus 0 runs on the CPU. A
machine without a GPU does so by itself.
"""

import argparse
import sys

import torch
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils.comm import get_rank
from detectron2.utils.logger import setup_logger

from ..engine import (
    BaseTrainer,
    check_config,
    config_settings,
    launch,
    load_config,
    set_device,
    trainer_class,
)
from .common import exit_on_mistake


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = default_argument_parser(epilog=__doc__)
    parser.add_argument(
        "--fast",
        action="store_true",
        help="evaluate with batch norm folded, channels_last, half precision where it is native",
    )
    args = parser.parse_args(argv)
    if not args.config_file:
        parser.error("--config-file is missing")
    if args.fast and not args.eval_only:
        parser.error("--fast is for --eval-only; training has train.amp.enabled")
    gpus = torch.cuda.device_count()
    if not 0 <= args.num_gpus <= max(gpus, 1):
        parser.error(f"--num-gpus is {args.num_gpus}, but this machine has {gpus}")
    if args.num_machines > 1 and args.num_gpus == 0:
        parser.error("--num-machines needs at least one GPU a machine")
    return args


def run(args: argparse.Namespace) -> None:
    """One process of the command: trains, or evaluates with ``--eval-only``.

    Raises:
        SystemExit: a mistake of the user's, found before the first iteration.
    """
    # TypeError is not among them: more often a new part is at fault than a config.
    with exit_on_mistake((ValueError, OSError, SyntaxError), locate=True):
        trainer = _set_up(args)
    if trainer is not None:
        trainer.train()


def _set_up(args: argparse.Namespace) -> BaseTrainer | None:
    """The trainer, ready to start; None after an evaluation with ``--eval-only``."""
    cfg = load_config(args.config_file, args.opts)
    check_config(cfg)
    cls = trainer_class(cfg)
    if args.num_gpus == 0:
        set_device(cfg, "cpu")
    default_setup(cfg, args)
    setup_logger(config_settings(cfg).output_dir, distributed_rank=get_rank(), name="gfocal")
    if args.eval_only:
        cls.evaluate(cfg, resume=args.resume, fast=args.fast)
        return None
    trainer = cls(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer


def main(argv: list[str] | None = None) -> int:
    launch(run, parse_args(argv))
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.train
    sys.exit(main())
