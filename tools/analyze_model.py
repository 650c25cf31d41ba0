"""Counts the parameters and FLOPs of models; prints a markdown table.

    python tools/analyze_model.py
    python tools/analyze_model.py COCO-Detection/gfl_R_50_FPN_1x.py mine.yaml --input-size 640 640

A CONFIG is a file or a name of the zoo; without one, all LazyConfigs of the zoo, which takes some
minutes on a CPU. Counted is the network, backbone and head, on one image, padded as in inference. A
FLOP is one multiply-add, as fvcore counts; the constants of frozen batch norm are no parameters. No
weights are loaded.
"""

import argparse
import os
import sys
from collections import Counter
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_count, get_shape
from torch import Tensor, nn

from gfocal import model_zoo
from gfocal.engine import load_config, set_device
from gfocal.meta_arch import GFL

# One operation an element or none, as the activations that fvcore leaves out by itself.
NOT_COUNTED = ("add", "add_", "avg_pool2d", "max_pool2d", "mean", "mul", "softmax", "topk")
NO_ARITHMETIC = ("unflatten",)


class Analysis(NamedTuple):
    """
    Attributes:
        parameters: number of parameters.
        flops: multiply-adds of backbone and head on one image.
        uncounted: operators that are neither counted nor known to cost next to nothing, and how
            often they ran.
    """

    parameters: int
    flops: int
    uncounted: Counter


class Network(nn.Module):
    """What of a detector runs on every image whatever is on it, from tensors to tensors."""

    def __init__(self, model: GFL):
        super().__init__()
        self.backbone, self.head, self.names = model.backbone, model.head, model.head_in_features

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone(images)
        predictions = self.head([features[name] for name in self.names])
        return tuple(x for x in predictions if x is not None)


def deform_conv2d_flops(inputs: list[Any], outputs: list[Any]) -> Counter:
    """As a convolution of the same shape; the interpolation of its samples is not counted."""
    shapes = [get_shape(x) for x in (*inputs[:2], outputs[0])]
    return Counter({"deform_conv": conv_flop_count(*shapes)})


@torch.no_grad()
def analyze(model: GFL, input_size: tuple[int, int]) -> Analysis:
    """
    Args:
        model: any GFL; it is set to eval mode.
        input_size: (height, width) of the image before padding, pixels.
    """
    model.eval()
    images = model.preprocess_image([{"image": torch.zeros(3, *input_size)}]).tensor
    flops = FlopCountAnalysis(Network(model), images)
    flops.set_op_handle("torchvision::deform_conv2d", deform_conv2d_flops)
    flops.set_op_handle(**{f"aten::{name}": None for name in NOT_COUNTED + NO_ARITHMETIC})
    flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    parameters = sum(p.numel() for p in model.parameters())
    return Analysis(parameters, int(flops.total()), flops.unsupported_ops())


def build(config: str) -> GFL:
    """The model of a config file or a name of the zoo, on the CPU, without weights."""
    cfg = load_config(config if os.path.isfile(config) else model_zoo.get_config_file(config))
    if isinstance(cfg, CfgNode):
        set_device(cfg, "cpu")
        model = build_model(cfg)
    else:
        model = instantiate(cfg.model)
    if not isinstance(model, GFL):
        raise TypeError(f"the model of {config} is a {type(model).__name__}; expected GFL")
    return model


def main(args: argparse.Namespace) -> None:
    height, width = args.input_size
    print(f"| config | parameters (M) | GFLOPs at {height} x {width} |\n|---|---|---|", flush=True)
    uncounted: Counter = Counter()
    for config in args.configs:
        result = analyze(build(config), (height, width))
        uncounted += result.uncounted
        row = f"| {config} | {result.parameters / 1e6:.2f} | {result.flops / 1e9:.1f} |"
        print(row, flush=True)
    if uncounted:
        print(f"\nNot counted: {', '.join(f'{op} ({n})' for op, n in uncounted.items())}")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", metavar="CONFIG", nargs="*", help="file or name of the zoo")
    parser.add_argument(
        "--input-size",
        metavar=("HEIGHT", "WIDTH"),
        nargs=2,
        type=int,
        default=(800, 1333),
        help="of the image, pixels (default 800 1333)",
    )
    args = parser.parse_args(argv)
    if min(args.input_size) < 1:
        parser.error(f"--input-size is {args.input_size}; expected at least 1 pixel")
    args.configs = args.configs or [n for n in model_zoo.list_configs() if n.endswith(".py")]
    return args


if __name__ == "__main__":
    try:
        main(parse_args())
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"error: {error}")
