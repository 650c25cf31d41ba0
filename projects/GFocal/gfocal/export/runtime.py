"""Detections from an ONNX file of ``gfocal export``, by onnxruntime, NumPy and Pillow alone.

Neither PyTorch nor Detectron2 is imported. Images are resized, and detections brought back to the
pixels of the image, as Detectron2 does.

N: images of a batch, C: channels, D: detections of all of them.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.batching import ImagePredictor, Size, format_to_read
from .card import ModelCard
from .detections import BoxArray, Detections
from .onnx_file import open_onnx
from .resizing import center_padded, resize, resized

__all__ = ["OnnxPredictor"]


class OnnxPredictor(ImagePredictor):
    """Applies a detector of an ONNX file to images, as :class:`gfocal.engine.Predictor` does.

    Attributes:
        weights: the file.
        card: what the file says of itself.
        session: the ``onnxruntime.InferenceSession``.
        class_names: of the K classes, in the order of ``pred_classes``; None if the file does not
            know them.
        input_format: order of the channels in the network, such as "RGB"; None for images that are
            no colours.
        read_format: the format in which :func:`gfocal.data.read_image` reads an image for it: "BGR"
            for a model of colour images, else the model's own.
        channels: of an image, 3 for colours.

    Examples:
        ```python
        from gfocal.export import OnnxPredictor

        predictor = OnnxPredictor("model.onnx")
        detections = predictor("photo.jpg")["instances"]
        names = [predictor.class_names[i] for i in detections.pred_classes]
        ```
    """

    card: ModelCard

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        providers: Sequence[Any] | None = None,
        threads: int | None = None,
    ):
        """
        Args:
            path: a file of ``gfocal export --format onnx --level full``.
            providers: of onnxruntime, by name or as (name, options); the first that can is used. By
                default CUDA where onnxruntime has it, else the CPU.
            threads: that a layer uses; by default onnxruntime decides.

        Raises:
            FileNotFoundError: no such file.
            ImportError: onnxruntime is not installed.
            TypeError: ``threads`` is no integer.
            ValueError: not such a file, a damaged one, one of another level, one that does not tell
                how images are resized; a provider that is not there.
        """
        self.weights = os.fspath(path)
        self.session, self.card = open_onnx(path, providers, threads)
        self.channels = len(self.card.pixel_mean)
        self.input_format = self.card.input_format or None
        self.read_format = format_to_read(self.channels, self.input_format)
        self.class_names = list(self.card.class_names) or None
        self._rule = dict(self.card.resize or {})
        self._mean, self._std = (
            np.array(x, np.float32).reshape(-1, 1, 1)
            for x in (self.card.pixel_mean, self.card.pixel_std)
        )

    @property
    def num_classes(self) -> int:
        """K."""
        return self.card.num_classes

    @property
    def category_ids(self) -> list[int] | None:
        """Of the dataset's json, for each class; None if the file does not know them."""
        return list(self.card.category_ids) or None

    def preprocess(self, image: np.ndarray) -> dict[str, Any]:
        """Turns an image into the network's input: resized as for testing, channels reordered.

        Args:
            image: (H, W, 3) uint8, BGR. If the model's images are not colours, (H, W, channels) in
                its own format.

        Returns:
            "image" (C, H', W') float32, values from 0 to 255, and the "height" H and "width" W of
            the output. Of a file that pads images on all sides also "border", (top, left) of the
            image there, and its "content_size".

        Raises:
            TypeError: not a uint8 array.
            ValueError: not of that shape, or empty.
        """
        self.check_image(image)
        height, width = image.shape[:2]
        if self.input_format == "RGB" and self.read_format == "BGR":
            image = image[:, :, ::-1]
        size, place = self.resized((height, width)), {}
        if "center_pad" in self._rule:
            mean = self._rule["center_pad"]["mean"]
            image, border = center_padded(image, size, mean)
            place = {"border": border, "content_size": (height, width)}
        elif self._rule:
            image = resize(image, size)
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
        return {"image": pixels, "height": height, "width": width, **place}

    def detect(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The detections of one batch of inputs: "instances", :class:`Detections` in the pixels of
        "height" x "width".

        Raises:
            ValueError: an image of another size than the file is for; or the graph's outputs
                contradict its metadata.
        """
        sizes = [tuple(x["image"].shape[-2:]) for x in inputs]
        expected = self.card.image_size
        for size in sizes:
            if expected is not None and size != expected:
                raise ValueError(
                    f"{self.weights} is for images of {expected[0]} x {expected[1]} px; got one of "
                    f"{size[0]} x {size[1]}"
                )
        feeds = {"images": self._batch([x["image"] for x in inputs])}
        if self.card.takes_sizes:
            feeds["image_sizes"] = np.array(sizes, np.int64)
        names = [x.name for x in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(names, feeds)))
        self._check(found, len(inputs))
        ends = np.searchsorted(found["image_idxs"], np.arange(len(inputs) + 1))
        return [
            {
                "instances": _in_pixels_of(
                    (x["height"], x["width"]),
                    x.get("content_size", size),
                    {name: values[start:end] for name, values in found.items()},
                    border=x.get("border", (0, 0)),
                    clips_boxes=self.card.clips_boxes,
                )
            }
            for x, size, start, end in zip(inputs, sizes, ends, ends[1:])
        ]

    def resized(self, size: Size) -> Size:
        """The size that an image has in the network, before padding."""
        return resized(size, self._rule)

    def padded(self, size: Size) -> Size:
        """The size that an input has in a batch. A graph that pads takes images of one size."""
        padded = self.card.padding.size(size)
        return padded if self.card.preprocessing == "outside" else size

    def _batch(self, images: list[np.ndarray]) -> np.ndarray:
        """(N, C, H, W) float32 of images of one size in a batch."""
        if self.card.preprocessing == "inside":
            return np.stack(images)
        batch = np.zeros((len(images), self.channels, *self.padded(images[0].shape[-2:])), "f4")
        for row, image in zip(batch, images):
            row[:, : image.shape[1], : image.shape[2]] = (image - self._mean) / self._std
        return batch

    def _check(self, found: dict[str, np.ndarray], number: int) -> None:
        """Refuses outputs that no right graph has."""
        images, classes = found["image_idxs"], found["classes"]
        wrong = None
        if len({len(values) for values in found.values()}) > 1:
            wrong = "outputs of different lengths"
        elif not all(np.isfinite(found[name]).all() for name in ("boxes", "scores")):
            wrong = "boxes or scores that are not finite"
        elif len(images) and (images[0] < 0 or images[-1] >= number or (np.diff(images) < 0).any()):
            wrong = f"detections that are not in the order of its {number} images"
        elif len(classes) and not 0 <= classes.min() <= classes.max() < self.num_classes:
            wrong = f"classes from {classes.min()} to {classes.max()} of {self.num_classes}"
        if wrong:
            raise ValueError(f"{self.weights}: the graph gave {wrong}")


def _in_pixels_of(
    size: Size,
    in_network: Size,
    found: dict[str, np.ndarray],
    border: tuple[int, int] = (0, 0),
    clips_boxes: bool = True,
) -> Detections:
    """The detections of one image: moved, scaled and, with ``clips_boxes``, clipped and without
    empty boxes, as by Detectron2's ``detector_postprocess``.

    Args:
        size: of the image.
        in_network: its size in the network, whose pixels ``found`` has.
        found: the graph's outputs for it.
        border: its place (top, left) there.
    """
    height, width = size
    scale = np.array([width / in_network[1], height / in_network[0]] * 2, np.float32)
    boxes = (found["boxes"] - np.array([*border[::-1]] * 2, np.float32)) * scale
    if clips_boxes:
        boxes = boxes.clip(0, np.array([width, height] * 2, np.float32))
    more = {"pred_box_stds": found["stds"] * scale} if "stds" in found else {}
    detections = Detections(
        size,
        pred_boxes=BoxArray(boxes),
        scores=found["scores"],
        pred_classes=found["classes"],
        **more,
    )
    return detections[detections.pred_boxes.nonempty()] if clips_boxes else detections
