"""Deformable convolutions on torchvision's operator.

It runs on CPU and GPU, without Detectron2's compiled operator. Parameter names are Detectron2's.

Shapes: N images, C channels, H x W pixels of a feature map. Offsets are in pixels of that map.
"""

import torch
from detectron2.layers import Conv2d
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

__all__ = ["DeformBottleneckBlock", "DeformConv2d", "deformable_twin"]


class DeformConv2d(Conv2d):
    """A convolution with moved samples: DCN (https://arxiv.org/abs/1703.06211, Eq. 2). If
    ``modulated``, the samples are weighted too: DCNv2 (https://arxiv.org/abs/1811.11168, Eq. 1).

    GFL's authors call models dcnv2 that are not modulated. Their weights load here.

    Args:
        args, kwargs: of ``detectron2.layers.Conv2d``, with ``norm`` and ``activation``.
        modulated: expect a weight for every sample.
    """

    def __init__(self, *args, modulated: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.modulated = modulated

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        """
        Args:
            x: (N, C_in, H, W).
            offsets: (N, G * 2 * kh * kw, H_out, W_out): for each of G groups of input channels and
                each sample of the kernel dy, dx in pixels of ``x``. If ``modulated``, half as many
                channels follow: the logits of the samples' weights.

        Returns:
            (N, C_out, H_out, W_out) in the dtype of ``x``; computed in at least float32.
        """
        # The operator has no bfloat16 kernel, and autocast on a CPU does not know it.
        dtype = torch.promote_types(x.dtype, torch.float32)
        weights = None
        if self.modulated:
            num_samples = offsets.shape[1] // 3
            offsets, logits = offsets.split([2 * num_samples, num_samples], dim=1)
            weights = logits.sigmoid().to(dtype)
        out = deform_conv2d(
            x.to(dtype),
            offsets.to(dtype),
            self.weight.to(dtype),
            None if self.bias is None else self.bias.to(dtype),
            self.stride,
            self.padding,
            self.dilation,
            weights,
        ).to(x.dtype)
        if self.norm is not None:
            out = self.norm(out)
        return out if self.activation is None else self.activation(out)


def deformable_twin(
    conv: Conv2d, modulated: bool, num_groups: int
) -> tuple[DeformConv2d, nn.Conv2d]:
    """A convolution's deformable twin, and the layer that predicts its offsets, at first all 0."""
    shape = {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}
    shape["dilation"] = conv.dilation
    num_samples = num_groups * conv.kernel_size[0] * conv.kernel_size[1]
    offset = nn.Conv2d(conv.in_channels, (3 if modulated else 2) * num_samples, **shape)
    for parameter in offset.parameters():
        nn.init.zeros_(parameter)
    twin = DeformConv2d(
        conv.in_channels,
        conv.out_channels,
        groups=conv.groups,
        bias=conv.bias is not None,
        norm=conv.norm,
        activation=conv.activation,
        modulated=modulated,
        **shape,
    )
    twin.weight, twin.bias = conv.weight, conv.bias
    return twin, offset


class DeformBottleneckBlock(BottleneckBlock):
    """Detectron2's ``DeformBottleneckBlock``, parameters and all, on torchvision's operator.

    Args:
        args, kwargs: of ``BottleneckBlock``.
        deform_modulated: DCNv2 instead of DCN.
        deform_num_groups: groups of input channels with offsets of their own.
    """

    def __init__(self, *args, deform_modulated: bool = False, deform_num_groups: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        twin, offset = deformable_twin(self.conv2, deform_modulated, deform_num_groups)
        self.add_module("conv2", twin)  # instead of the base class's
        self.add_module("conv2_offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.conv1(x))
        out = F.relu_(self.conv2(out, self.conv2_offset(out)))
        out = self.conv3(out)
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)
