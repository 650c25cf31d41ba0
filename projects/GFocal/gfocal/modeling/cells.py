"""Maps of cells: where they are, and which objects have their centre in one.

N images, G objects of the batch. A map has H x W cells at a stride; places in it are (x, y), boxes
on it are XYXY in cells. The top left cell reaches from (0, 0) to (1, 1).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .matchers import ignore_background_inside
from .numerics import to_device
from .structures import BACKGROUND, DenseAnchors, GroundTruth

__all__ = ["Centers", "cell_anchors", "cells_of", "centers_of", "valid_background"]


class Centers(NamedTuple):
    """The objects of a batch whose centre lies on the map.

    Attributes:
        image_idxs, classes: (G,).
        cells: (G, 2) x, y of their centres' cells.
        boxes: (G, 4) XYXY, in cells.
        owns_cell: (G,) bool; of several objects in one cell the last one has it.
        owns_peak: (G,) bool; the same among those of one class.
    """

    image_idxs: Tensor
    classes: Tensor
    cells: Tensor
    boxes: Tensor
    owns_cell: Tensor
    owns_peak: Tensor

    @property
    def sizes(self) -> tuple[Tensor, Tensor]:
        """Widths and heights (G,) of the boxes, cells."""
        widths, heights = (self.boxes[:, 2:] - self.boxes[:, :2]).unbind(dim=1)
        return widths, heights


def centers_of(truth: GroundTruth, map_size: Sequence[int], stride: int) -> Centers:
    """The objects of a batch.

    Args:
        truth: of the batch.
        map_size: (H, W).
        stride: of the map, pixels.
    """
    height, width = map_size
    boxes = torch.cat([x.tensor for x in truth.boxes]) / stride
    cells = ((boxes[:, :2] + boxes[:, 2:]) / 2).floor()
    on_map = ((cells >= 0) & (cells < to_device([width, height], cells))).all(dim=1)
    images = torch.arange(len(truth.boxes), device=boxes.device)
    images = images.repeat_interleave(to_device(truth.counts, images))[on_map]
    cells, classes = cells[on_map].long(), torch.cat([*truth.classes])[on_map].long()
    places = (images * height + cells[:, 1]) * width + cells[:, 0]
    owns_cell, owns_peak = _last(places), _last(torch.stack([places, classes], dim=1))
    return Centers(images, classes, cells, boxes[on_map], owns_cell, owns_peak)


def _last(keys: Tensor) -> Tensor:
    """(G,) bool: which of (G, ...) keys are the last of their value."""
    values, inverse = keys.unique(dim=0, return_inverse=True)
    numbers = torch.arange(len(keys), device=keys.device)
    last = numbers.new_full((len(values),), -1).scatter_reduce(0, inverse, numbers, "amax")
    return last[inverse] == numbers


def cells_of(height: Any, width: Any, device: torch.device) -> Tensor:
    """(H * W, 2) x, y of all cells, row by row. (Under a trace, sizes are tensors.)"""
    rows, columns = (torch.arange(n, device=device) for n in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def cell_anchors(map_size: Sequence[int], stride: int, device: torch.device) -> DenseAnchors:
    """The middles of all cells, as a dense detector has its locations."""
    height, width = map_size
    middles = (cells_of(height, width, device) + 0.5) * stride
    strides = torch.full_like(middles[:, 0], stride)
    return DenseAnchors(torch.cat([middles, middles], dim=1), strides, [(height, width)])


def valid_background(
    truth: GroundTruth, centers: Centers, map_size: Sequence[int], stride: int
) -> Tensor | None:
    """Where there may be background: not in the ignored regions, but for the objects' cells.

    Args:
        truth, centers: of the batch.
        map_size: (H, W).
        stride: of the map, pixels.

    Returns:
        (N, 1, H, W) bool; None: everywhere.
    """
    if not any(x is not None and len(x) for x in truth.ignore_regions):
        return None
    images, (columns, rows) = centers.image_idxs, centers.cells.unbind(dim=1)
    shape = (len(truth.boxes), *map_size)
    labels = torch.full(shape, BACKGROUND, device=images.device)
    labels[images, rows, columns] = 0
    anchors = cell_anchors(map_size, stride, images.device)
    found = ignore_background_inside(labels.flatten(1), anchors, truth.ignore_regions)
    return (found >= BACKGROUND).view(shape).unsqueeze(1)
