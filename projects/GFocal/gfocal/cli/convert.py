"""Converts a checkpoint of GFocalV2 or mmdetection 2.x/3.x (GFL, FoveaBox, SSD, CenterNet,
CornerNet) into one of ours.

    gfocal convert gfl_r50_fpn_1x_coco.pth gfl_R_50_FPN_1x.pth
    gfocal convert --to-mmdet model_final.pth for_mmdet.pth

The file is read without running its code. A key without a counterpart, a missing key or a key of
another shape is an error. Then nothing is written.
"""

import argparse
import contextlib
import sys
from typing import Any

from omegaconf import DictConfig

from ..config import load_config, model_zoo
from ..engine.classes import Classes, classes_of
from ..weights import convert_checkpoint_to_mmdet, convert_mmdet_checkpoint, describe
from ..weights.description import KEY, find_config
from ..weights.tables import table_of
from ..weights.writing import write_checkpoint
from .common import exit_on_mistake, make_parser, parse_arguments


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("out", metavar="OUT", help="the .pth file to write")
    parser.add_argument(
        "--num-classes",
        metavar="K",
        type=int,
        help="class rows to keep; by default all of v1 and all but the last of v2",
    )
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="the LazyConfig whose model it is, if it is none of the published models; weights of "
        "ours carry theirs",
    )
    parser.add_argument(
        "--to-mmdet", action="store_true", help="the other way: a checkpoint of ours to mmdetection"
    )
    args = parse_arguments(parser, argv)
    if not args.out.endswith(".pth"):
        parser.error(f"OUT is {args.out!r}; it must end in .pth, by which Detectron2 knows it")
    if args.num_classes is not None and args.num_classes < 1:
        parser.error(f"--num-classes is {args.num_classes}; expected at least 1")
    if args.to_mmdet and args.num_classes is not None:
        parser.error("--num-classes is for the way from mmdetection, not for --to-mmdet")
    return args


def run(args: argparse.Namespace) -> None:
    cfg, model = None, None
    if args.config_file:
        cfg = _lazy_config(args.config_file)
        model = cfg.model
        if args.num_classes is not None:
            model.num_classes = args.num_classes
    if args.to_mmdet:
        model = model or _carried_model(args.checkpoint)
        state_dict, names = convert_checkpoint_to_mmdet(args.checkpoint, model)
        write_checkpoint({"state_dict": state_dict, "meta": {}}, args.out)
    else:
        state_dict, names = convert_mmdet_checkpoint(args.checkpoint, args.num_classes, model)
        cfg = cfg or model_zoo.get_config(names[0])
        classes = table_of(state_dict).classes_of(state_dict)
        write_checkpoint({"model": state_dict, KEY: _description(cfg, classes)}, args.out)
    print(f"wrote {args.out}: {len(state_dict)} tensors")
    if names:
        print(f"It is the model of {' and '.join(names)}.")
    if not args.to_mmdet:
        print(f"It carries its config. To evaluate it:\n  gfocal eval --weights {args.out}")


def _carried_model(checkpoint: str) -> DictConfig | None:
    """The model of the LazyConfig that weights carry, if they do."""
    with contextlib.suppress(ValueError):
        cfg, _ = find_config(None, checkpoint)
        return cfg.model if isinstance(cfg, DictConfig) else None
    return None


def _lazy_config(file: str) -> DictConfig:
    cfg = load_config(model_zoo.find_config(file))
    if "model" not in cfg:
        raise ValueError(f"{file} has no model; expected a LazyConfig")
    return cfg


def _description(cfg: DictConfig, num_classes: int | None) -> dict[str, Any]:
    """What the converted weights say of themselves, with the class names of the config's dataset if
    there are as many."""
    classes = classes_of(cfg)
    if len(classes.names) != num_classes:
        classes = Classes()
    description = describe(
        cfg,
        num_classes=num_classes,
        class_names=classes.names,
        category_ids=classes.category_ids,
    )
    return description.plain()


@exit_on_mistake()
def main(argv: list[str] | None = None) -> int:
    run(parse_args(argv))
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.convert
    sys.exit(main())
