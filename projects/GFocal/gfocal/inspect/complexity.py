"""Parameters and FLOPs of a detector.

What a detector's ``raw`` computes, that is its networks, is counted on one image, padded as in
inference. A FLOP is one multiply-add, as fvcore counts.
"""

from collections import Counter
from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_count, get_shape
from torch import Tensor, nn

from ..modeling.detector import Detector

__all__ = ["count_flops", "count_parameters", "deform_conv2d_flops"]

# At most one operation an element, like the activations that fvcore itself leaves out.
NOT_COUNTED = (
    *("add", "add_", "avg_pool2d", "div", "linalg_vector_norm", "max_pool2d", "maximum"),
    *("mean", "mul", "softmax", "topk"),
)
NO_ARITHMETIC = ("pad", "unflatten")


class Network(nn.Module):
    """The part of a detector that runs on every image in the same way, from tensors to tensors."""

    def __init__(self, model: Detector):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.raw(images).values())


def deform_conv2d_flops(inputs: list[Any], outputs: list[Any]) -> Counter:
    """Counts a convolution of the same shape; the interpolation of the samples is not counted."""
    shapes = [get_shape(x) for x in (*inputs[:2], outputs[0])]
    return Counter({"deform_conv": conv_flop_count(*shapes)})


def count_parameters(model: nn.Module) -> int:
    """Number of parameters of a network, including weight and bias of a frozen norm."""
    frozen = (m for m in model.modules() if isinstance(m, FrozenBatchNorm2d))
    return sum(p.numel() for p in model.parameters()) + sum(2 * m.num_features for m in frozen)


@torch.no_grad()
def count_flops(model: Detector, input_size: tuple[int, int]) -> tuple[int, Counter]:
    """
    Args:
        model: a detector with ``raw``; it is set to eval mode.
        input_size: (height, width) of the image before padding, pixels.

    Returns:
        Multiply-adds of its networks; and {name: number of calls} of operators that were not
        counted and may be expensive.
    """
    model.eval()
    image = torch.zeros(len(model.pixel_mean), *input_size, device=model.device)
    images = model.preprocess_image([{"image": image}]).tensor
    analysis = FlopCountAnalysis(Network(model), images)
    analysis.set_op_handle("torchvision::deform_conv2d", deform_conv2d_flops)
    analysis.set_op_handle(**{f"aten::{name}": None for name in NOT_COUNTED + NO_ARITHMETIC})
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    return int(analysis.total()), analysis.unsupported_ops()
