"""Counts the parameters and FLOPs of models; prints a markdown table.

    python tools/analyze_model.py
    python tools/analyze_model.py COCO-Detection/gfl_R_50_FPN_1x.py mine.yaml --input-size 640 640

A CONFIG is a file or a name of the zoo; without one, all LazyConfigs of the zoo, which takes some
minutes on a CPU. Counted is the network, backbone and head, on one image, padded as in inference. A
FLOP is one multiply-add, as fvcore counts. No weights are loaded.
"""

import argparse
import os
import sys
from collections import Counter
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_count, get_shape
from torch import Tensor, nn

from gfocal import model_zoo
from gfocal.engine import check_model, load_config, set_device
from gfocal.meta_arch import GFL

# One operation an element or none, as the activations that fvcore leaves out by itself.
NOT_COUNTED = ("add", "add_", "avg_pool2d", "max_pool2d", "mean", "mul", "softmax", "topk")
NO_ARITHMETIC = ("unflatten",)


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


def count_parameters(model: nn.Module) -> int:
    """Parameters of a network; weight and bias of a frozen norm are some, if not ones to learn."""
    frozen = (m for m in model.modules() if isinstance(m, FrozenBatchNorm2d))
    return sum(p.numel() for p in model.parameters()) + sum(2 * m.num_features for m in frozen)


@torch.no_grad()
def count_flops(model: GFL, input_size: tuple[int, int]) -> tuple[int, Counter]:
    """
    Args:
        model: any GFL; it is set to eval mode.
        input_size: (height, width) of the image before padding, pixels.

    Returns:
        Multiply-adds of backbone and head, and the operators (name: how often they ran) that are
        neither counted nor known to cost next to nothing.
    """
    model.eval()
    images = model.preprocess_image([{"image": torch.zeros(3, *input_size)}]).tensor
    analysis = FlopCountAnalysis(Network(model), images)
    analysis.set_op_handle("torchvision::deform_conv2d", deform_conv2d_flops)
    analysis.set_op_handle(**{f"aten::{name}": None for name in NOT_COUNTED + NO_ARITHMETIC})
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    return int(analysis.total()), analysis.unsupported_ops()


def build(config: str) -> GFL:
    """The model of a config file or a name of the zoo, on the CPU, without weights."""
    cfg = load_config(config if os.path.isfile(config) else model_zoo.get_config_file(config))
    check_model(cfg)
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
    header = f"| config | parameters (M) | GFLOPs at {height} x {width} |\n|---|---|---|"
    uncounted: Counter = Counter()
    for config in args.configs:
        model = build(config)
        if header:
            print(header)
            header = ""
        parameters = count_parameters(model)
        flops, others = count_flops(model, (height, width))
        uncounted += others
        print(f"| {config} | {parameters / 1e6:.2f} | {flops / 1e9:.1f} |", flush=True)
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
    except (ValueError, TypeError, OSError, SyntaxError) as error:
        sys.exit(f"error: {error}")
