"""Converts a checkpoint of GFocalV2 or mmdetection 2.x/3.x (GFL, v1 or v2) into one of ours.

    python tools/convert_mmdet.py gfl_r50_fpn_1x_coco.pth gfl_R_50_FPN_1x.pth
    python tools/convert_mmdet.py --to-mmdet model_final.pth for_mmdet.pth

The file is read without running code of it. A key without a counterpart, a missing one or one of
another shape is an error, and then nothing is written.
"""

import argparse
import os
import sys

import torch

from gfocal.checkpoint import (
    convert_mmdet_checkpoint,
    load_weights_only,
    to_mmdet_state_dict,
)
from gfocal.engine import load_config


def main(args: argparse.Namespace) -> None:
    configs: list[str] = []
    if args.to_mmdet:
        checkpoint = load_weights_only(args.checkpoint)
        state_dict = to_mmdet_state_dict(checkpoint.get("model", checkpoint))
        save({"state_dict": state_dict, "meta": {}}, args.out)
    else:
        model_cfg = load_config(args.config_file).model if args.config_file else None
        if model_cfg is not None and args.num_classes is not None:
            model_cfg.num_classes = args.num_classes
        state_dict, configs = convert_mmdet_checkpoint(args.checkpoint, args.num_classes, model_cfg)
        save({"model": state_dict}, args.out)
    print(f"wrote {args.out}: {len(state_dict)} tensors")
    if configs:
        print(f"It is the model of {' and '.join(configs)}. To evaluate it:")
        rows = len(state_dict["head.cls_logits.bias"])
        print(
            f"  python tools/train_net.py --config-file configs/{configs[0]} --eval-only "
            f"train.init_checkpoint={args.out}" + f" model.num_classes={rows}" * (rows != 80)
        )


def save(checkpoint: dict, path: str) -> None:
    """Writes all of the file or nothing."""
    part = f"{path}.part"
    try:
        torch.save(checkpoint, part)
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
        help="the LazyConfig whose model it is, if it is none of the published models",
    )
    parser.add_argument(
        "--to-mmdet", action="store_true", help="the other way: a checkpoint of ours to mmdetection"
    )
    args = parser.parse_args(argv)
    if not args.out.endswith(".pth"):
        parser.error(f"OUT is {args.out!r}; it must end in .pth, by which Detectron2 knows it")
    if args.num_classes is not None and args.num_classes < 1:
        parser.error(f"--num-classes is {args.num_classes}; expected at least 1")
    return args


if __name__ == "__main__":
    try:
        main(parse_args())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
