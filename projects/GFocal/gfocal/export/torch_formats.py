"""PyTorch's own formats: TorchScript, which C++ loads, and torch.export.

In both, NMS is torchvision's operator: a program that runs level "full" links or imports
torchvision.
"""

import warnings
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor

from .card import KEY, ModelCard
from .network import TensorNetwork

__all__ = [
    "TorchGraph",
    "dynamic_shapes",
    "read_torch_export",
    "read_torchscript",
    "write_torch_export",
    "write_torchscript",
]


class TorchGraph:
    """A graph that PyTorch runs, see :class:`gfocal.export.formats.Runnable`."""

    def __init__(self, module: Any, card: ModelCard):
        self.module, self.card = module, card

    def __call__(self, images: Tensor, image_sizes: Tensor | None = None) -> dict[str, Tensor]:
        inputs = [images] if image_sizes is None else [images, image_sizes]
        with torch.no_grad():
            return dict(zip(self.card.outputs, self.module(*inputs)))

    @property
    def score_thresh(self) -> Tensor:
        return dict(self.module.named_buffers())["score_thresh"]

    def with_score_thresh(self, values: Tensor) -> "TorchGraph":
        self.score_thresh.copy_(values)
        return self


def write_torchscript(
    network: TensorNetwork, inputs: tuple[Tensor, ...], card: ModelCard, path: str
) -> None:
    """Traces a network, whose convolutions become channels_last, and writes it."""
    network.to(memory_format=torch.channels_last)  # much faster on a CPU
    with torch.no_grad(), warnings.catch_warnings():
        # A trace warns of each size that could be a constant. None is: the check runs other sizes.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, inputs, check_trace=False)
        torch.jit.save(traced, path, _extra_files={KEY: card.to_json()})


def read_torchscript(path: str) -> TorchGraph:
    """Reads what :func:`write_torchscript` wrote.

    Raises:
        ValueError: another file.
    """
    extra = {KEY: ""}
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):  # that of newer versions
            warnings.simplefilter("ignore", kind)
        try:
            module = torch.jit.load(path, map_location="cpu", _extra_files=extra)
        except RuntimeError as error:
            raise ValueError(
                f"{path} is no file of TorchScript ({str(error).splitlines()[0]})"
            ) from None
    return TorchGraph(module, ModelCard.from_json(_text(extra[KEY]), path))


def write_torch_export(
    network: TensorNetwork, inputs: tuple[Tensor, ...], card: ModelCard, path: str
) -> None:
    """Exports a network, whose convolutions become channels_last, and writes it.

    Raises:
        ValueError: a PyTorch that is too old.
    """
    network.to(memory_format=torch.channels_last)  # much faster on a CPU
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            network, inputs, dynamic_shapes=dynamic_shapes(network), strict=False
        )
        torch.export.save(program, path, extra_files={KEY: card.to_json()})


def read_torch_export(path: str) -> TorchGraph:
    """Reads what :func:`write_torch_export` wrote.

    Raises:
        ValueError: another file.
    """
    extra = {KEY: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
    except (RuntimeError, ValueError, OSError, KeyError, BadZipFile) as error:
        raise ValueError(f"{path} is no program of torch.export ({error})") from None
    return TorchGraph(program.module(), ModelCard.from_json(_text(extra[KEY]), path))


def dynamic_shapes(network: TensorNetwork) -> tuple[Any, ...]:
    """Which sizes of the inputs are free, as torch.export takes it: batch, height and width; of a
    network for one size the batch alone.

    Raises:
        ValueError: a PyTorch that is too old.
    """
    if not hasattr(getattr(torch.export, "Dim", None), "DYNAMIC"):
        raise ValueError(
            f"this is PyTorch {torch.__version__}; ONNX and torch.export need 2.6 or later. "
            "(TorchScript does not: --output model.ts)"
        )
    free = torch.export.Dim.DYNAMIC
    sides = {} if network.image_size else {2: free, 3: free}
    shapes = {"images": {0: free, **sides}, "image_sizes": {0: free}}
    return tuple(shapes[name] for name in network.input_names)


def _text(data: Any) -> str:
    return data.decode() if isinstance(data, bytes) else data
