"""Parameters and FLOPs of detectors, as a markdown table; by default of every published model.

    python tools/analyze_model.py
    python tools/analyze_model.py COCO-Detection/gfl_R_50_FPN_1x.py mine.py --input-size 640 640

Of the network, backbone and head, on one image that the model pads to its size divisibility. FLOPs
are fvcore's: a multiply-add is one. No weights are loaded.
"""

import argparse
import os
import sys
from collections import Counter

import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn

from gfocal import model_zoo
from gfocal.engine import load_config


class Network(nn.Module):
    """The dense part of a detector: an image to the predictions of all levels."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.model.backbone(images)
        predictions = self.model.head([features[f] for f in self.model.head_in_features])
        return tuple(x for x in predictions if x is not None)


def deform_conv_flops(inputs: list, outputs: list) -> Counter:
    """Of torchvision's deformable convolution: those of the plain one. Reading its samples by
    bilinear interpolation is not counted."""
    kernel, out = get_shape(inputs[1]), get_shape(outputs[0])
    flops = out[0] * out[2] * out[3] * kernel[0] * kernel[1] * kernel[2] * kernel[3]
    return Counter({"deform_conv": flops})


def count(config: str, size: tuple[int, int]) -> tuple[float, float, Counter]:
    """Parameters and FLOPs of a config's model, and its operators that were not counted."""
    path = config if os.path.exists(config) else model_zoo.get_config_file(config)
    model = instantiate(load_config(path).model).eval()
    divisor = model.backbone.size_divisibility
    height, width = (-(-n // divisor) * divisor for n in size)
    with torch.no_grad():
        analysis = FlopCountAnalysis(Network(model), torch.zeros(1, 3, height, width))
        analysis.set_op_handle("torchvision::deform_conv2d", deform_conv_flops)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        flops = analysis.total()
    return count_parameters(model), flops, analysis.unsupported_ops()


def count_parameters(model: nn.Module) -> int:
    """Parameters of a network; weight and bias of a frozen norm are some, if not ones to learn."""
    frozen = (m for m in model.modules() if isinstance(m, FrozenBatchNorm2d))
    return sum(p.numel() for p in model.parameters()) + sum(2 * m.num_features for m in frozen)


def main(args: argparse.Namespace) -> None:
    configs = args.configs or [n for n in model_zoo.list_configs() if n.endswith(".py")]
    print(f"| config | parameters (M) | GFLOPs at {args.input_size[0]} x {args.input_size[1]} |")
    print("|---|---|---|")
    uncounted: set[str] = set()
    for config in configs:
        parameters, flops, ops = count(config, args.input_size)
        uncounted |= set(ops)
        name = os.path.splitext(os.path.basename(config))[0]
        print(f"| {name} | {parameters / 1e6:.2f} | {flops / 1e9:.1f} |", flush=True)
    print(f"\nNot counted (element-wise, pooling, sorting): {', '.join(sorted(uncounted))}")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", metavar="CONFIG", nargs="*", help="a zoo name or a LazyConfig")
    parser.add_argument("--input-size", metavar=("H", "W"), nargs=2, type=int, default=(800, 1333))
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        main(parse_args())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
