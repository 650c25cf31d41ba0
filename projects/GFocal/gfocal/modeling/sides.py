"""What a detection says of its four sides: standard deviations and distributions, in pixels.

M detections of one image, C bins. Sides are left, top, right, bottom. On the detections these are
the fields

- `pred_box_stds` (M, 4): standard deviation of each side, pixels.
- `pred_box_distributions` (M, 4, C): probability of each bin.
- `bin_edges` (M, 4, C): place of the side if it lies at that bin, pixels: an x for left and right,
  a y for top and bottom. The paper's first bin is the anchor's centre.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor

from .structures import DenseAnchors, DensePredictions

__all__ = [
    "Distributions",
    "check_distributions",
    "in_output",
    "in_unpadded_output",
    "side_distributions",
    "side_stds",
    "without_border",
]

_FIELDS = {"pred_box_stds": (-1, 4), "bin_edges": (-1, 4, 1)}  # which are in pixels, and their view


class Distributions(NamedTuple):
    """The distributions of M detections.

    Attributes:
        probabilities, bin_edges: (M, 4, C), see the top of this module.
    """

    probabilities: Tensor
    bin_edges: Tensor


def check_distributions(representation: Any) -> None:
    """
    Raises:
        TypeError: the box representation has no distributions.
    """
    if not hasattr(representation, "probabilities"):
        raise TypeError(
            f"distributions of a box representation {type(representation).__name__}: it has none. "
            "GeneralDistribution has"
        )


def side_stds(
    anchors: DenseAnchors, predictions: DensePredictions, image_idxs: Any, locations: Tensor
) -> Tensor | None:
    """Standard deviations of the sides at some locations.

    Args:
        anchors, predictions: of the batch.
        image_idxs: the image, or (M,) images.
        locations: (M,) in 0..R-1.

    Returns:
        (M, 4) pixels of the network's input; None of a representation that has none (a Dirac).
    """
    representation: Any = predictions.box_representation
    if not hasattr(representation, "std"):
        return None
    stds = representation.std(predictions.box_logits[image_idxs, locations])
    return stds * anchors.strides[locations, None]


def side_distributions(
    anchors: DenseAnchors, predictions: DensePredictions, image_idxs: Any, locations: Tensor
) -> Distributions:
    """Distributions of the sides at some locations; the arguments are those of :func:`side_stds`.

    Raises:
        TypeError: the box representation has none.
    """
    representation: Any = predictions.box_representation
    check_distributions(representation)
    probs = representation.probabilities(predictions.box_logits[image_idxs, locations])
    offsets = anchors.strides[locations, None, None] * representation.bins.to(anchors.strides)
    outward = offsets.new_tensor([-1.0, -1.0, 1.0, 1.0])[:, None]
    centers = anchors.centers[locations]
    return Distributions(
        probs, torch.cat([centers, centers], dim=1)[:, :, None] + outward * offsets
    )


def in_output(result: Instances, height: int, width: int) -> Instances:
    """Detectron2's ``detector_postprocess``, with the fields of the sides.

    Args:
        result: detections in pixels of the network's input.
        height, width: of the output image, pixels.

    Returns:
        Detections in pixels of the output image: boxes clipped to it, those without area dropped.
    """
    fields = dict(result.get_fields())
    _scale_sides(fields, (width / result.image_size[1], height / result.image_size[0]))
    return detector_postprocess(Instances(result.image_size, **fields), height, width)


def in_unpadded_output(
    result: Instances, inputs: Mapping[str, Any], image_size: tuple[int, int]
) -> Instances:
    """Detections of an image that may lie in the middle of a padded one. They are moved and scaled
    and nothing else: boxes are not clipped, and those without area stay, as published detectors of
    points answer them.

    Args:
        result: detections in pixels of the network's input.
        inputs: the image's dict, see :func:`without_border`. "height" and "width" are those of the
            output; by default the size of the image.
        image_size: (height, width) of the network's input without padding, pixels.
    """
    result = without_border(result, inputs, image_size)
    height, width = result.image_size
    height, width = inputs.get("height", height), inputs.get("width", width)
    scales = (width / result.image_size[1], height / result.image_size[0])
    fields = dict(result.get_fields())
    boxes = fields["pred_boxes"].tensor
    fields["pred_boxes"] = Boxes(boxes * boxes.new_tensor(scales * 2))
    _scale_sides(fields, scales)
    return Instances((height, width), **fields)


def without_border(
    result: Instances, inputs: Mapping[str, Any], image_size: tuple[int, int]
) -> Instances:
    """Detections in pixels of the image that lies in the middle of a padded one.

    Args:
        result: detections in pixels of the network's input.
        inputs: the image's dict. "border" is the (top, left) of the image in the padded one and
            "content_size" its (height, width), pixels; without them nothing was padded.
        image_size: (height, width) of the network's input without padding, pixels.

    Raises:
        FloatingPointError: a box is infinite or NaN.
    """
    fields = dict(result.get_fields())
    if not fields["pred_boxes"].tensor.isfinite().all():
        raise FloatingPointError(
            f"{inputs.get('file_name', 'an image')}: the network predicts boxes that are infinite "
            "or NaN; its weights have diverged, or its precision is too small"
        )
    if "border" in inputs:
        top, left = inputs["border"]
        corner, boxes = (left, top) * 2, fields["pred_boxes"].tensor
        fields["pred_boxes"] = Boxes(boxes - boxes.new_tensor(corner))
        if "bin_edges" in fields:
            edges = fields["bin_edges"]
            fields["bin_edges"] = edges - edges.new_tensor(corner).view(_FIELDS["bin_edges"])
    return Instances(inputs.get("content_size", image_size), **fields)


def _scale_sides(fields: dict[str, Any], scales: tuple[float, float]) -> None:
    """Scales the sides' fields among those of some detections, by x and y."""
    for name, view in _FIELDS.items():
        if name in fields:
            fields[name] = fields[name] * fields[name].new_tensor(scales * 2).view(view)
