"""ONNX files as ``gfocal export`` writes them, built by hand: a detector of brightness.

Each image has the boxes of ``BOXES``, as fractions of its size. The score of box r is ``SCORES[r]``
times the brightness: the channels' means, 0 to 1, weighted by ``WEIGHTS``. Its class is r modulo K.
Boxes below the threshold are left out, so a dark image has fewer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gfocal.export.card import KEY, ModelCard

BOXES = np.array(
    [
        [0.1, 0.2, 0.5, 0.9],
        [0.0, 0.0, 1.0, 1.0],
        [0.5, 0.5, 0.5, 0.8],  # without an area
        [0.25, 0.1, 0.3, 0.15],
    ],
    np.float32,
)
SCORES = np.array([1.0, 0.75, 0.6, 0.5], np.float32)
THRESHOLD = 0.25


def weights_of(channels: int) -> np.ndarray:
    """(C,), sum 1, all different: another order of the channels gives other scores."""
    weights = np.arange(1, channels + 1, dtype=np.float32)
    return weights / weights.sum()


def make_card(**changes: Any) -> ModelCard:
    values: dict[str, Any] = {
        "level": "full",
        "preprocessing": "inside",
        "stds": False,
        "precision": "float32",
        "num_classes": 3,
        "class_names": ["cat", "dog", "owl"],
        "category_ids": [7, 9, 4],
        "input_format": "RGB",
        "pixel_mean": [120.0, 110.0, 100.0],
        "pixel_std": [50.0, 60.0, 70.0],
        "size_divisibility": 32,
        "resize": {"short_edge": 80, "max_size": 120},
        "strides": [8, 16],
        "score_thresh": THRESHOLD,
        "nms_thresh": 0.6,
        "class_agnostic": False,
        "topk_candidates": 1000,
        "max_detections": 100,
        "versions": {"gfocal": "0.1.0"},
        "outputs": ["boxes", "scores", "classes", "image_idxs"],
    }
    return ModelCard(**{**values, **changes})


def write_onnx(
    path: Path,
    card: ModelCard | None = None,
    *,
    metadata: str | None = "",
    boxes: np.ndarray = BOXES,
    scale_of_idxs: int = 1,
    more_classes: int = 0,
    inputs: Sequence[Any] = (),
    outputs: Sequence[str] = (),
) -> Path:
    """Writes a file that does what its card says.

    Args:
        path: of the file.
        card: what the file says of itself.
        metadata: the text in place of the card's; None for none.
        boxes: in place of ``BOXES``.
        scale_of_idxs, more_classes: what is wrong with the outputs.
        inputs: shape of ``images``, in place of (N, C, H, W) of any size.
        outputs: names of the outputs, in place of the card's.
    """
    card = card or make_card()
    channels = len(card.pixel_mean)
    mean, std = (np.array(x, np.float32) for x in (card.pixel_mean, card.pixel_std))
    constants = {
        "weights": weights_of(channels) / 255,
        "fractions": boxes[None],
        "base": SCORES[None],
        "threshold": np.float32(THRESHOLD),
        "corners": np.array([1, 0, 1, 0], np.int64),
        "spatial": np.array([2], np.int64),
        "end": np.array([4], np.int64),
        "num_classes": np.int64(card.num_classes),
        "more_classes": np.int64(more_classes),
        "scale_of_idxs": np.int64(scale_of_idxs),
        "zero": np.int64(0),
        "one": np.int64(1),
        "last": np.array([1], np.int64),
        "mean": mean,
        "std": std,
        "part": np.float32(0.125),
        "both": np.array([2, 3], np.int64),
        "first": np.array([0], np.int64),
    }
    node = helper.make_node
    if card.preprocessing == "inside":
        nodes = [
            node("Shape", ["images"], ["shape"]),
            node("Slice", ["shape", "spatial", "end"], ["size"]),
            node("Unsqueeze", ["size", "first"], ["image_sizes"]),
            node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        ]
    else:  # zeros of the padding add nothing to the sum
        nodes = [
            node("ReduceSum", ["images", "both"], ["sums"], keepdims=0),
            node("ReduceProd", ["image_sizes"], ["areas"], axes=[1], keepdims=1),
            node("Cast", ["areas"], ["float_areas"], to=TensorProto.FLOAT),
            node("Div", ["sums", "float_areas"], ["normalized_means"]),
            node("Mul", ["normalized_means", "std"], ["spread"]),
            node("Add", ["spread", "mean"], ["means"]),
        ]
    nodes += [
        node("MatMul", ["means", "weights"], ["brightness"]),
        node("Unsqueeze", ["brightness", "last"], ["column"]),
        node("Mul", ["column", "base"], ["all_scores"]),
        node("Greater", ["all_scores", "threshold"], ["kept"]),
        node("NonZero", ["kept"], ["pairs"]),
        node("Transpose", ["pairs"], ["rows"], perm=[1, 0]),
        node("GatherND", ["all_scores", "rows"], ["scores"]),
        node("Gather", ["pairs", "zero"], ["image"], axis=0),
        node("Gather", ["pairs", "one"], ["box"], axis=0),
        node("Mul", ["image", "scale_of_idxs"], ["image_idxs"]),
        node("Mod", ["box", "num_classes"], ["class"]),
        node("Add", ["class", "more_classes"], ["classes"]),
        node("Gather", ["image_sizes", "corners"], ["sides"], axis=1),
        node("Cast", ["sides"], ["float_sides"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["float_sides", "last"], ["sides_of_images"]),
        node("Mul", ["sides_of_images", "fractions"], ["boxes_of_images"]),
        node("Shape", ["all_scores"], ["shape_of_scores"]),
        node("Concat", ["shape_of_scores", "end"], ["shape_of_boxes"], axis=0),
        node("Expand", ["boxes_of_images", "shape_of_boxes"], ["all_boxes"]),
        node("GatherND", ["all_boxes", "rows"], ["boxes"]),
        node("Mul", ["boxes", "part"], ["stds"]),
    ]
    kinds = {
        "boxes": (TensorProto.FLOAT, ["D", 4]),
        "scores": (TensorProto.FLOAT, ["D"]),
        "classes": (TensorProto.INT64, ["D"]),
        "image_idxs": (TensorProto.INT64, ["D"]),
        "stds": (TensorProto.FLOAT, ["D", 4]),
    }
    names = outputs or [name for name in kinds if name != "stds" or card.stds]
    info = helper.make_tensor_value_info
    shape = list(inputs) or ["N", channels, "H", "W"]
    takes = [info("images", TensorProto.FLOAT, shape)]
    if card.preprocessing == "outside":
        takes.append(info("image_sizes", TensorProto.INT64, ["N", 2]))
    used = {name for x in nodes for name in x.input}
    graph = helper.make_graph(
        nodes,
        "brightness",
        takes,
        [info(name, *kinds[name]) for name in names],
        [numpy_helper.from_array(np.asarray(x), k) for k, x in constants.items() if k in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata is not None:
        helper.set_model_props(model, {KEY: metadata or card.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
