"""8-bit ONNX files: onnxruntime's static quantization.

Convolutions and matrix products of the network compute in 8 bits. What comes after the last
convolution stays in float32, excluded by name: softmax, expectation, DGQP, scores, NMS. The
integral of a distribution needs more than 256 values.
"""

import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from .card import KEY, ModelCard

__all__ = ["after_the_network", "quantize_onnx"]

QUANTIZED = ("Conv", "MatMul", "Gemm")


def quantize_onnx(path: str, inputs: Iterable[dict[str, np.ndarray]]) -> None:
    """Quantizes a file in place.

    Args:
        path: an ONNX file of `gfocal export` in float32.
        inputs: of calibration images, {name: array} as the graph takes them. They say what range
            each number has.

    Raises:
        ValueError: there are no images.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load(path)
    card = ModelCard.from_json({x.key: x.value for x in model.metadata_props}.get(KEY), path)
    batches = _Batches(inputs)
    if not batches:
        raise ValueError("there is no image to calibrate with")
    with tempfile.TemporaryDirectory() as folder:
        part = os.path.join(folder, "int8.onnx")
        quiet = logging.getLogger().level
        try:
            logging.getLogger().setLevel(logging.ERROR)  # it would advise to preprocess
            quantize_static(
                model,
                part,
                batches,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED),
                nodes_to_exclude=after_the_network(model),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            logging.getLogger().setLevel(quiet)
        quantized = onnx.load(part)
    onnx.helper.set_model_props(
        quantized, {KEY: dataclasses.replace(card, precision="int8").to_json()}
    )
    onnx.save(quantized, path)


def after_the_network(model: Any) -> list[str]:
    """The names of the nodes that no convolution comes after, but for convolutions.

    Args:
        model: an ``onnx.ModelProto``. Its nodes are in the order of computation, as ONNX asks.
    """
    feeds: set[str] = set()  # tensors that a convolution is computed from
    names = []
    for node in reversed(model.graph.node):
        if node.op_type == "Conv" or any(output in feeds for output in node.output):
            feeds.update(node.input)
        else:
            names.append(node.name)
    return names


class _Batches:
    """The calibration images, as onnxruntime asks for them."""

    def __init__(self, inputs: Iterable[dict[str, np.ndarray]]):
        self._inputs = iter(inputs)
        self._next = next(self._inputs, None)

    def __bool__(self) -> bool:
        return self._next is not None

    def get_next(self) -> dict[str, np.ndarray] | None:
        found, self._next = self._next, next(self._inputs, None)
        return found
