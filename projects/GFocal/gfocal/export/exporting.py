"""From a detector to a file that was checked."""

import contextlib
import copy
import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import detectron2
import numpy as np
import torch
from torch import Tensor

from .._padding import Padding
from .._version import __version__
from ..modeling.detector import Detector
from .card import ModelCard
from .formats import FORMATS, Runnable
from .network import TensorNetwork
from .parity import (
    LIMITS,
    Difference,
    check_images,
    inputs_of,
    parity,
    table,
    thresholds_of,
)
from .quantize import quantize_onnx
from .torch_formats import TorchGraph

__all__ = ["ParityError", "export_model"]

# Of the traced batch: of no size that the check has.
_EXAMPLE = (2, 192, 256)


class ParityError(ValueError):
    """An exported file does not find what the detector finds."""


def export_model(
    detector: Detector,
    path: str | os.PathLike,
    *,
    format: str = "onnx",
    level: str = "full",
    preprocessing: str = "inside",
    stds: bool | None = None,
    half: bool = False,
    class_names: Sequence[str] = (),
    category_ids: Sequence[int] = (),
    input_format: str | None = None,
    resize: Mapping[str, Any] | None = None,
    description: Mapping[str, Any] | None = None,
    calibration: Iterable[Tensor] | None = None,
    images: Sequence[Tensor] | None = None,
) -> list[Difference]:
    """Writes a detector to a file, runs the file, and compares it with the detector.

    Args:
        detector: with its weights, in float32. It does not change.
        path: of the file. It is there only if it passes. Its folder is made.
        format: "onnx", "torchscript" or "torch_export".
        level, preprocessing, stds: see :class:`gfocal.export.network.TensorNetwork`.
        half: backbone and head compute in float16.
        class_names, category_ids: of the K classes.
        input_format: order of the channels; by default the detector's. "" if they are no colours.
        resize: how images are resized before, see :class:`gfocal.export.card.ModelCard`. Of a
            fixed height and width, the file is for images of that size alone.
        description: of the weights, as plain data.
        calibration: batches (N, C, H, W), values 0..255, of such images as the detector is for.
            With them the file computes in 8 bits, see quantize.py. ONNX in float32 only. What it
            costs is in the answer, and is no error.
        images: batches (N, C, H, W) to compare on, values 0..255, beside made-up ones.

    Returns:
        The differences on each batch.

    Raises:
        ParityError: they are beyond ``gfocal.export.parity.LIMITS``; it has the table.
        TypeError, ValueError: the detector has no such form, see TensorNetwork; its weights are
            not in float32, or not finite; another ``format``; or a description that is no JSON.
        OSError: the file cannot be written.
        MissingPackageError: onnx, onnxscript or onnxruntime is not installed.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; expected one of {', '.join(FORMATS)}")
    size = (resize["height"], resize["width"]) if resize and "height" in resize else None
    form = functools.partial(
        TensorNetwork, level=level, preprocessing=preprocessing, stds=stds, image_size=size
    )
    network = form(detector, dtype=torch.float16 if half else None).cpu()
    detector = _reference(detector)
    card = _card(
        network,
        precision="float16" if half else "float32",
        class_names=list(class_names),
        category_ids=list(category_ids),
        input_format=detector.input_format or "" if input_format is None else input_format,
        resize=resize,
        description=dict(description or {}),
    )
    if calibration is not None and (format != "onnx" or half):
        raise ValueError("calibration is for ONNX in float32")
    # Autocast of the caller's would be written into the file.
    with torch.autocast("cpu", enabled=False), _there_if_it_passes(os.fspath(path)) as part:
        if half:  # its limits are wide: so what is rounding and what is not is told apart here
            exact = TorchGraph(form(detector), dataclasses.replace(card, precision="float32"))
            _check(detector, exact, "network")
        FORMATS[format].write(network, _example(network), card, part)
        rows = _check(detector, FORMATS[format].read(part), f"{format} file", images)
        if calibration is not None:
            quantize_onnx(part, _inputs(detector, card, calibration))
            rows = _check(detector, FORMATS[format].read(part), f"{format} file", images)
        return rows


def _reference(detector: Detector) -> Detector:
    """A copy to compare with, in eval mode on the CPU. So nothing of the caller's model changes,
    such as the statistics of a batch norm in training.

    Raises:
        ValueError: weights in another precision than float32, or that are not finite.
    """
    for name, x in (*detector.named_parameters(), *detector.named_buffers()):
        if not x.is_floating_point():
            continue
        if x.dtype != torch.float32:
            raise ValueError(
                f"{name} is in {x.dtype}; expected torch.float32. (Export a detector before it is "
                "optimized in half precision; `half` writes float16)"
            )
        if not x.isfinite().all():
            raise ValueError(f"{name} has values that are not finite, so there is no detector")
    return copy.deepcopy(detector).eval().cpu()


def _check(
    detector: Detector, graph: Runnable, what: str, images: Sequence[Tensor] | None = None
) -> list[Difference]:
    """Compares a graph with its detector, see :func:`export_model`."""
    card = graph.card
    if card.level == "full" and not torch.equal(graph.score_thresh, thresholds_of(detector)):
        raise ParityError(
            f"the {what} has the score thresholds {graph.score_thresh.tolist()}, the detector "
            f"{thresholds_of(detector).tolist()}"
        )
    rows = parity(detector, graph, check_images(card), images or ())
    limits = LIMITS[card.precision]
    if not all(row.passes(limits) for row in rows):
        raise ParityError(
            f"the {what} does not do what the detector does (limits: score {limits.score}, "
            f"box {limits.box} px, {limits.share:.0%} of the detections):\n"
            f"{table(rows, card.level)}"
        )
    if not any(row.found for row in rows):
        raise ParityError(
            "the file could not be compared with the detector, which finds nothing on the images: "
            "no score is above 0.0001. Give images on which it does (--images)"
        )
    return rows


def _inputs(
    detector: Detector, card: ModelCard, batches: Iterable[Tensor]
) -> Iterator[dict[str, np.ndarray]]:
    for batch in batches:
        inputs = inputs_of(detector, card, list(batch))
        yield {name: x.numpy() for name, x in zip(("images", "image_sizes"), inputs)}


def _card(network: TensorNetwork, **known: Any) -> ModelCard:
    detector = network.detector
    full = network.level == "full"
    thresholds = network.score_thresh.tolist() if full else [0.0]
    padding = Padding.of(detector.backbone)
    return ModelCard(
        level=network.level,
        preprocessing=network.preprocessing,
        stds=network.stds,
        clips_boxes=detector.clips_boxes,
        calibrated=full and network.calibration is not None,
        num_classes=detector.num_classes,
        pixel_mean=detector.pixel_mean.flatten().tolist(),
        pixel_std=detector.pixel_std.flatten().tolist(),
        size_divisibility=padding.divisibility,
        square_size=padding.square,
        strides=[int(stride) for stride in getattr(detector, "strides", ())],
        score_thresh=thresholds if len({*thresholds}) > 1 else thresholds[0],
        nms_thresh=network.nms_thresh if full else 1.0,
        class_agnostic=full and network.class_agnostic,
        topk_candidates=network.topk if full else 0,
        max_detections=network.max_detections if full else 0,
        versions={
            "gfocal": __version__,
            "detectron2": detectron2.__version__,
            "torch": str(torch.__version__),
        },
        outputs=network.output_names,
        **known,
    )


def _example(network: TensorNetwork) -> tuple[Tensor, ...]:
    count, height, width = _EXAMPLE
    height, width = network.image_size or (height, width)
    if network.preprocessing == "outside":
        height, width = Padding.of(network.detector.backbone).size((height, width))
    channels = len(network.detector.pixel_mean)
    images = torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))
    inputs = (255 * images, torch.tensor([[height, width - 1], [height - 2, width]]))
    return inputs[: len(network.input_names)]


@contextlib.contextmanager
def _there_if_it_passes(path: str) -> Iterator[str]:
    """A path to write to. What is there becomes the file at the end, if nothing is raised.

    Raises:
        OSError: there can be no such file.
    """
    folder, name = os.path.split(path)
    folder = folder or "."
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; expected a file, or none")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise NotADirectoryError(f"{folder} is a file, so {path} cannot be written")
    os.makedirs(folder, exist_ok=True)
    # In the same folder: from another disk a move could stop half way.
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as parts:
        yield os.path.join(parts, name)
        # An ONNX file of more than 2 GB has its weights beside it, in one of another name.
        for part in sorted(os.listdir(parts), reverse=True):
            os.replace(os.path.join(parts, part), os.path.join(folder, part))
