"""Which images share a batch of an inference: those that have the same size in the network.

An image beside a larger one would get padding, and padding changes its detections: convolutions and
group normalisation see it. Equal sizes share a batch, so that a batch gives what its images give
one by one.

Sizes are (height, width), pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._padding import Size
from .images import as_array

__all__ = ["ImagePredictor", "Size", "format_to_read", "plan_batches"]


class ImagePredictor(ABC):
    """What predictors share: how they are called with one image or many.

    Attributes:
        weights: the file.
        class_names: of the K classes, in the order of ``pred_classes``; None if nobody knows them.
        read_format: the format in which :func:`gfocal.data.read_image` reads an image for it: "BGR"
            for a model of colour images, else the model's own.
        channels: of an image, 3 for colours.
    """

    weights: str
    class_names: list[str] | None
    read_format: str | None
    channels: int

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """K."""

    @property
    @abstractmethod
    def category_ids(self) -> list[int] | None:
        """Of the dataset's json, for each class; None if nobody knows them."""

    @abstractmethod
    def preprocess(self, image: np.ndarray) -> dict[str, Any]:
        """The network's input for an image: "image" (C, H', W') and its "height" and "width"."""

    @abstractmethod
    def detect(self, inputs: list[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """The detections of one batch of inputs."""

    @abstractmethod
    def resized(self, size: Size) -> Size | None:
        """The size that :meth:`preprocess` gives an image; None if it can't be told."""

    @abstractmethod
    def padded(self, size: Size) -> Size:
        """The size after padding, of an input of that size. Only equal ones share a batch."""

    def size_in_batch(self, size: Size) -> Size | None:
        """The size of an image in a batch, told without its pixels; None if it can't be told."""
        resized = self.resized(size)
        return resized and self.padded(resized)

    def __call__(self, image: Any, batch_size: int = 8) -> Any:
        """
        Args:
            image: an array (H, W, 3), uint8, BGR; a PIL image; or the path of a file. Or a list of
                these.
            batch_size: of a list, at most so many images at once. Only images of equal size in the
                network share a batch, see batching.py.

        Returns:
            the output for the image: "instances" in its pixels. A list for a list.

        Raises:
            TypeError, ValueError: not an image; of a list, with the index.
            FileNotFoundError: no such file.
        """
        if not isinstance(image, (list, tuple)):
            return self.predict([self.preprocess(as_array(image, self.read_format))], 1)[0]
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size!r}; expected an integer of at least 1")
        outputs: list[Any] = [None] * len(image)
        for start in range(0, len(image), 4 * batch_size):  # bounds what waits in memory
            inputs = [
                self._numbered(index, image[index])
                for index in range(start, min(start + 4 * batch_size, len(image)))
            ]
            outputs[start : start + len(inputs)] = self.predict(inputs, batch_size)
        return outputs

    def predict(self, inputs: list[dict[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        """The outputs for inputs of :meth:`preprocess`. Only inputs of equal size share a batch."""
        outputs: list[Any] = [None] * len(inputs)
        sizes = [self.padded(tuple(x["image"].shape[-2:])) for x in inputs]
        for batch in plan_batches(sizes, batch_size):
            found = self.detect([inputs[index] for index in batch])
            for index, output in zip(batch, found):
                outputs[index] = output
        return outputs

    def check_image(self, image: np.ndarray) -> None:
        """Refuses what :meth:`preprocess` cannot take.

        Raises:
            TypeError: not a uint8 array. (Of images that are no colours, float32 is taken too.)
            ValueError: not of shape (H, W, channels), or empty.
        """
        order = f"{self.read_format} order" if self.read_format == "BGR" else "the model's format"
        expected = f"(H, W, {self.channels}) in {order}"
        kinds = (np.uint8,) if self.read_format == "BGR" else (np.uint8, np.float32)
        if not isinstance(image, np.ndarray) or image.dtype not in kinds:
            got = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
            raise TypeError(f"expected a uint8 array {expected}, got {got}")
        if image.ndim != 3 or image.shape[2] != self.channels or 0 in image.shape:
            raise ValueError(f"expected an image {expected}, got shape {image.shape}")

    def _numbered(self, index: int, image: Any) -> dict[str, Any]:
        try:
            return self.preprocess(as_array(image, self.read_format))
        except (TypeError, ValueError) as error:
            raise type(error)(f"image {index}: {error}") from error


def format_to_read(channels: int, input_format: str | None) -> str | None:
    """The format in which an image is read for a network: "BGR" for one of colours, in whichever
    order it takes them; else its own."""
    return "BGR" if channels == 3 and input_format in ("RGB", "BGR") else input_format


def plan_batches(sizes: Sequence[Size | None], batch_size: int) -> list[list[int]]:
    """Batches of images of equal size, in the order of their first images.

    Args:
        sizes: of each image in the network, with padding; None: it gets a batch of its own.
        batch_size: at most so many images a batch.

    Returns:
        the indices of each batch's images.
    """
    batches: list[list[int]] = []
    filling: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        batch = filling.get(size) if size is not None else None
        if batch is None or len(batch) == batch_size:
            batch = []
            batches.append(batch)
            if size is not None:
                filling[size] = batch
        batch.append(index)
    return batches
