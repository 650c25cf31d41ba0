"""Trains or evaluates a detector from a LazyConfig (.py) or a yacs config (.yaml).

    python tools/train_net.py --config-file configs/quick_start/shapes_gflv2.py
    python tools/train_net.py --config-file C --num-gpus 8 --resume train.output_dir=output/run
    torchrun --nproc-per-node 8 tools/train_net.py --config-file C
    python tools/train_net.py --config-file C --eval-only train.init_checkpoint=model_final.pth

Overrides: key=value; for yacs also Detectron2's KEY VALUE pairs. --num-gpus 0 runs on the CPU, and
so does a machine without a GPU.
"""

import argparse
import sys
import traceback

import torch
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils.comm import get_rank
from detectron2.utils.logger import setup_logger

import gfocal
from gfocal.engine import (
    check_config,
    config_settings,
    launch,
    load_config,
    set_device,
    trainer_class,
)


def main(args: argparse.Namespace) -> None:
    try:
        cfg = load_config(args.config_file, args.opts)
        check_config(cfg)
        cls = trainer_class(cfg)
        if args.num_gpus == 0:
            set_device(cfg, "cpu")
        default_setup(cfg, args)
        setup_logger(config_settings(cfg).output_dir, distributed_rank=get_rank(), name="gfocal")
        if args.eval_only:
            trainer = None
            cls.evaluate(cfg, resume=args.resume, fast=args.fast)
        else:
            trainer = cls(cfg)
            trainer.resume_or_load(resume=args.resume)
    except (ValueError, OSError, SyntaxError) as error:
        # What the user has to correct, or a failed download; whose code found it helps who is
        # writing a new part.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        ours = frame.filename.startswith(gfocal.__path__[0])
        sys.exit(f"error: {error}" + ("" if ours else f" ({frame.filename}:{frame.lineno})"))
    if trainer is not None:
        trainer.train()


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


if __name__ == "__main__":
    launch(main, parse_args())
