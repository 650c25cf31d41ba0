"""The formats of `gfocal export`: how a network is written to a file, and how a file is run."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

from .card import ModelCard
from .network import TensorNetwork
from .onnx_format import read_onnx, write_onnx
from .torch_formats import (
    read_torch_export,
    read_torchscript,
    write_torch_export,
    write_torchscript,
)

__all__ = ["FORMATS", "Format", "Runnable"]


class Runnable(Protocol):
    """A file that was read. It is for checks; an application uses the runtime's own interface.

    Attributes:
        card: what the file says of itself.
        score_thresh: (K,) the score thresholds that lie in it (level "full").
    """

    card: ModelCard

    @property
    def score_thresh(self) -> Tensor: ...

    def __call__(self, images: Tensor, image_sizes: Tensor | None = None) -> dict[str, Tensor]:
        """The outputs by name; the arguments are those of :class:`TensorNetwork`."""

    def with_score_thresh(self, values: Tensor) -> "Runnable":
        """The same graph with other score thresholds (K,) (level "full")."""


class Format(NamedTuple):
    """A format.

    Attributes:
        suffix: of its files.
        write: called with a network, example inputs, the card and a path.
        read: called with the path.
    """

    suffix: str
    write: Callable[[TensorNetwork, tuple[Tensor, ...], ModelCard, str], None]
    read: Callable[[str], Runnable]


FORMATS = {
    "onnx": Format(".onnx", write_onnx, read_onnx),
    "torchscript": Format(".ts", write_torchscript, read_torchscript),
    "torch_export": Format(".pt2", write_torch_export, read_torch_export),
}
