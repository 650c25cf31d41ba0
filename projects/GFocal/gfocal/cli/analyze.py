"""Counts the parameters and FLOPs of models; prints a markdown table.

    gfocal analyze
    gfocal analyze COCO-Detection/gfl_R_50_FPN_1x.py mine.yaml --input-size 640 640

A CONFIG is a file or a name of the zoo. Without one, all LazyConfigs of the zoo are counted, which
takes some minutes on a CPU. The networks are counted on one image, padded as in inference. Where
the config resizes all test images to one size, as for SSD, it has that size. A FLOP is one
multiply-add, as fvcore counts. No weights are loaded.
"""

import argparse
import sys
from collections import Counter

from detectron2.config import CfgNode, instantiate
from detectron2.modeling import build_model
from omegaconf import OmegaConf

from ..config import model_zoo, without_pretraining
from ..data.mapper import resize_of
from ..data.pipelines import yacs_augmentations
from ..engine import check_model, load_config, set_device
from ..inspect.complexity import count_flops, count_parameters
from ..modeling.detector import Detector
from .common import exit_on_mistake, make_parser, parse_arguments

USUAL = (800, 1333)  # the size of images on which FLOPs of detectors are published


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("configs", metavar="CONFIG", nargs="*", help="file or name of the zoo")
    parser.add_argument(
        "--input-size",
        metavar=("HEIGHT", "WIDTH"),
        nargs=2,
        type=int,
        help="of the image, pixels (default 800 1333, or the one size of a config)",
    )
    args = parse_arguments(parser, argv)
    if args.input_size and min(args.input_size) < 1:
        parser.error(f"--input-size is {args.input_size}; expected at least 1 pixel")
    args.configs = args.configs or [n for n in model_zoo.list_configs() if n.endswith(".py")]
    return args


def run(args: argparse.Namespace) -> None:
    usual = tuple(args.input_size or USUAL)
    height, width = usual
    header = f"| config | parameters (M) | GFLOPs at {height} x {width} |\n|---|---|---|"
    uncounted: Counter = Counter()
    for config in args.configs:
        model, only = build(config)
        size = usual if args.input_size or only is None else only
        if header:
            print(header)
            header = ""
        parameters = count_parameters(model)
        flops, others = count_flops(model, size)
        uncounted += others
        other_size = "" if size == usual else " at {} x {}".format(*size)
        gflops = f"{flops / 1e9:.1f}{other_size}"
        print(f"| {config} | {parameters / 1e6:.2f} | {gflops} |", flush=True)
    if uncounted:
        print(f"\nNot counted: {', '.join(f'{op} ({n})' for op, n in uncounted.items())}")


def build(config: str) -> tuple[Detector, tuple[int, int] | None]:
    """The model of a config file or a name of the zoo, on the CPU, without weights; and the one
    (height, width) that its test images have, if they have."""
    cfg = load_config(model_zoo.find_config(config))
    check_model(cfg)
    if isinstance(cfg, CfgNode):
        set_device(cfg, "cpu")
        model = build_model(cfg)
    else:
        model = instantiate(without_pretraining(cfg).model)
    if not isinstance(model, Detector):
        raise TypeError(
            f"the model of {config} is a {type(model).__name__}; expected a detector with `raw`: "
            "GFL, SSD, CenterNet or CornerNet"
        )
    if isinstance(cfg, CfgNode):
        augmentations = yacs_augmentations(cfg, is_train=False)
    else:
        calls = OmegaConf.select(cfg, "dataloader.test.mapper.augmentations", default=None)
        augmentations = [instantiate(call) for call in calls or ()]
    rule = resize_of(augmentations) or {}
    return model, (rule["height"], rule["width"]) if "height" in rule else None


@exit_on_mistake()
def main(argv: list[str] | None = None) -> int:
    run(parse_args(argv))
    return 0


if __name__ == "__main__":  # python -m gfocal.cli.analyze
    sys.exit(main())
