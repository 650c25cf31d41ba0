"""A trained detector, made ready to run fast.

No detector is imported here. A detector that can be optimized has two methods, see
:class:`Optimizable`.
"""

from typing import Protocol, TypeVar, runtime_checkable

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

__all__ = ["Optimizable", "fast_dtype", "fold_norms", "optimize_for_inference"]

Detector = TypeVar("Detector", bound=nn.Module)


@runtime_checkable
class Optimizable(Protocol):
    """A detector that can be optimized, as those of gfocal."""

    def networks(self) -> tuple[nn.Module, ...]:
        """Returns the modules that `torch.compile` may take, each in one piece."""

    def cast_networks(self, dtype: torch.dtype) -> None:
        """Lets these modules compute in another precision. All else stays in float32."""


def optimize_for_inference(
    model: Detector,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    compile: bool = False,
) -> Detector:
    """Change a trained detector, in place, into a faster one with the same detections.

    Batch norm is folded into the convolutions before it. The model is then for inference only:
    folded weights cannot be trained, nor loaded into another model.

    Args:
        model: with its weights, on its device.
        dtype: of backbone and head, e.g. :func:`fast_dtype`; None leaves it. In half precision the
            scores change in their third digit. Boxes and scores are still computed in float32.
        channels_last: memory format of the convolutions, much faster on a CPU.
        compile: run backbone and head through torch.compile. It takes a minute at the first image,
            and again at the first image of another shape. A copy of the model, or one that is saved
            and loaded, has its own weights and runs uncompiled.

    Returns:
        The model, in eval mode.

    Raises:
        TypeError: the model cannot be optimized, see :class:`Optimizable`.
        ValueError: ``compile`` with a PyTorch before 2.2. The model has not changed then.
    """
    if not isinstance(model, Optimizable):
        raise TypeError(
            f"got a {type(model).__name__}; optimize_for_inference knows the detectors "
            "of gfocal, and others with their methods networks and cast_networks"
        )
    if compile and not hasattr(nn.Module, "compile"):
        raise ValueError(f"compile=True is for PyTorch 2.2 and later; this is {torch.__version__}")
    model.eval()
    fold_norms(model)
    if dtype is not None:
        model.cast_networks(dtype)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if compile:
        # On a CPU the weights become constants. They are then laid out for its convolutions once.
        on_cpu = next(model.parameters()).device.type == "cpu"
        options = {"freezing": True} if on_cpu else None
        for network in model.networks():
            network.compile(options=options)
    return model


def fast_dtype(device: torch.device | str) -> torch.dtype | None:
    """The half precision that a device computes in natively, or None.

    float16 on CUDA; on a CPU bfloat16, if it has instructions for it.
    """
    if torch.device(device).type == "cuda":
        return torch.float16
    try:
        with open("/proc/cpuinfo") as f:
            flags = f.read()
    except OSError:  # not Linux
        return None
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else None


def fold_norms(model: nn.Module) -> None:
    """Folds batch norms into the convolutions before them, in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            _fold_norm(module)


@torch.no_grad()
def _fold_norm(conv: nn.Conv2d) -> None:
    """Fold the norm of a Detectron2 convolution into its weights, if it is a batch norm."""
    norm = getattr(conv, "norm", None)
    if not isinstance(norm, (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm)):
        return
    if "weight" not in conv._parameters:  # made anew in each pass: spectral norm, pruning, ...
        return
    if norm.weight is None or norm.bias is None:  # affine
        return
    if norm.running_mean is None or norm.running_var is None:  # track_running_stats
        return
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    bias = norm.bias.double() - norm.running_mean.double() * scale
    if conv.bias is not None:
        bias += conv.bias.double() * scale
    weight = conv.weight.double() * scale[:, None, None, None]
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
    conv.register_module("norm", None)
