"""Boxes and the distances of their sides, in any one unit.

Reference: FCOS (https://arxiv.org/abs/1904.01355), Eq. 1.
"""

import torch
from torch import Tensor

__all__ = ["aligned_iou", "boxes_to_distances", "center_distance", "distances_to_boxes"]


def distances_to_boxes(centers: Tensor, distances: Tensor) -> Tensor:
    """Boxes whose sides lie ``distances`` from ``centers``.

    The inverse of :func:`boxes_to_distances` for the same centres.

    Args:
        centers: (..., 2) points (x, y).
        distances: (..., 4) left, top, right, bottom, in the unit of ``centers``.

    Returns:
        (..., 4) XYXY boxes in that unit.
    """
    return torch.cat([centers - distances[..., :2], centers + distances[..., 2:]], dim=-1)


def boxes_to_distances(centers: Tensor, boxes: Tensor) -> Tensor:
    """How far the sides of ``boxes`` lie from ``centers``; negative where a centre is outside.

    The inverse of :func:`distances_to_boxes` for the same centres.

    Args:
        centers: (..., 2) points (x, y).
        boxes: (..., 4) XYXY boxes in the unit of ``centers``.

    Returns:
        (..., 4) left, top, right, bottom.
    """
    return torch.cat([centers - boxes[..., :2], boxes[..., 2:] - centers], dim=-1)


def aligned_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of each box with the one at the same place.

    Args:
        boxes1, boxes2: (..., 4) XYXY in one unit, broadcastable.

    Returns:
        (...) in [0, 1]; 0 where both boxes are empty.

    Raises:
        ValueError: if the boxes are no rows of four numbers, such as rotated boxes.
    """
    shapes = tuple(boxes1.shape), tuple(boxes2.shape)
    if any(shape[-1:] != (4,) for shape in shapes):
        raise ValueError(f"boxes of the shapes {shapes[0]} and {shapes[1]}; expected (..., 4) XYXY")
    lt = torch.maximum(boxes1[..., :2], boxes2[..., :2])
    rb = torch.minimum(boxes1[..., 2:], boxes2[..., 2:])
    intersection = (rb - lt).clamp(min=0).prod(dim=-1)
    union = _area(boxes1) + _area(boxes2) - intersection
    return intersection / union.clamp(min=1e-6)


def center_distance(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """How far apart the centres of boxes are: the squared distance over the squared diagonal of the
    smallest box around both. The IoU less this is DIoU (https://arxiv.org/abs/1911.08287, Sec. 3).

    Args:
        boxes1, boxes2: (..., 4) XYXY in one unit, broadcastable.

    Returns:
        (...) in [0, 1).
    """
    lt = torch.minimum(boxes1[..., :2], boxes2[..., :2])
    rb = torch.maximum(boxes1[..., 2:], boxes2[..., 2:])
    centers1, centers2 = ((x[..., :2] + x[..., 2:]) / 2 for x in (boxes1, boxes2))
    return _squared_length(centers1 - centers2) / _squared_length(rb - lt).clamp(min=1e-6)


def _squared_length(vectors: Tensor) -> Tensor:
    x, y = vectors.unbind(dim=-1)  # a sum over two columns is slower
    return x.square() + y.square()


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)
