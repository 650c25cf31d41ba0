"""Objects as pairs of corners: pooling, what the network says, pairing.

Reference: CornerNet (https://arxiv.org/abs/1808.01244).

N images, K classes, G objects of the whole batch, k corners of each kind, T pairs. Maps have H x W
cells of STRIDE pixels. A place is (x, y) = (column, row). Boxes are XYXY pixels of the network's
input. The corner of a box at (x, y) px lies in the cell floor((x, y) / STRIDE), and its offset is
the rest, in cells.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .cells import cells_of
from .heatmaps import heatmap_peaks
from .numerics import at_least_float32, is_traced

__all__ = [
    "STRIDE",
    "CornerMaps",
    "CornerPairs",
    "CornerPredictions",
    "Corners",
    "best_corners",
    "corner_pool",
    "pair_corners",
    "running_max",
]

STRIDE = 4
# A traced graph doubles this often, whatever the size of its input: enough for 2048 cells.
_TRACED_DOUBLINGS = 11


class CornerMaps(NamedTuple):
    """What the network says of one corner.

    Attributes:
        heat_logits: (N, K, H, W).
        embeddings: (N, 1, H, W); alike for the two corners of an object.
        offsets: (N, 2, H, W) x, y in cells.
    """

    heat_logits: Tensor
    embeddings: Tensor
    offsets: Tensor


class CornerPredictions(NamedTuple):
    """What the network says of a batch.

    Attributes:
        stacks: of each stack the maps of the top left and of the bottom right corner; the last one
            is that of the detections.
        mirrored: those of the last stack for the mirrored images; None if nobody asked.
        widths: of the images that were mirrored, without padding, pixels; () of images without.
    """

    stacks: tuple[tuple[CornerMaps, CornerMaps], ...]
    mirrored: tuple[CornerMaps, CornerMaps] | None = None
    widths: Sequence[int] = ()

    def detach(self) -> "CornerPredictions":
        return self._with(lambda x: x.detach())

    def first(self) -> "CornerPredictions":
        """Those of the first image."""
        return self._with(lambda x: x[:1])._replace(widths=self.widths[:1])

    def _with(self, change: Callable[[Tensor], Tensor]) -> "CornerPredictions":
        def changed(maps: tuple[CornerMaps, CornerMaps]) -> tuple[CornerMaps, CornerMaps]:
            return CornerMaps(*map(change, maps[0])), CornerMaps(*map(change, maps[1]))

        return CornerPredictions(
            tuple(changed(x) for x in self.stacks),
            None if self.mirrored is None else changed(self.mirrored),
            self.widths,
        )


class Corners(NamedTuple):
    """The best corners of one kind.

    Attributes:
        scores, classes, embeddings: (N, k). A score is 0 where there is no corner.
        points: (N, k, 2) x, y px.
    """

    scores: Tensor
    classes: Tensor
    embeddings: Tensor
    points: Tensor


class CornerPairs(NamedTuple):
    """The best pairs of corners.

    Attributes:
        boxes: (N, T, 4).
        scores: (N, T), best first; 0 where there is no pair.
        classes: (N, T).
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def corner_pool(x: Tensor, dim: int, *, to_end: bool) -> Tensor:
    """The largest value from a cell to an edge of the map.

    A top left corner is seen from the object below it and to its right: it pools ``to_end``, along
    columns and along rows. A bottom right one pools from the beginning.

    Args:
        x: (..., H, W).
        dim: -2 along a column (over rows), -1 along a row.
        to_end: over this cell and those after it; else over those before it and this one.

    Returns:
        (..., H, W)
    """
    if not (x.requires_grad and torch.is_grad_enabled()):
        return running_max(x, dim, to_end=to_end)
    # The same values, and no plain graph. But its backward is ten times faster, and it keeps one
    # map of indices in place of a map for each doubling.
    return x.flip(dim).cummax(dim).values.flip(dim) if to_end else x.cummax(dim).values


def running_max(x: Tensor, dim: int, *, to_end: bool) -> Tensor:
    """:func:`corner_pool` in padding, slices and maxima alone: every export format has these.

    After the steps s = 1, 2, 4, ... a cell has the maximum of 2 s cells: its own, and that of the
    cell at distance s. A trace is right for maps of up to 2048 cells in a direction.
    """
    size = x.shape[dim]
    doublings = _TRACED_DOUBLINGS if is_traced() else (size - 1).bit_length()
    for step in (2**i for i in range(doublings)):
        widths = [0, 0, 0, 0]  # left, right, top, bottom
        widths[2 * (-1 - dim) + to_end] = step
        padded = F.pad(x, widths, value=-math.inf)
        x = torch.maximum(x, padded.narrow(dim, step if to_end else 0, size))
    return x


def best_corners(maps: CornerMaps, topk: int) -> Corners:
    """The ``topk`` highest peaks of the heat maps, of all classes together."""
    num_classes, height, width = maps.heat_logits.shape[1:]
    scores = heatmap_peaks(at_least_float32(maps.heat_logits).sigmoid()).flatten(1)
    if not is_traced():  # a trace is made of maps that have as many
        topk = min(topk, num_classes * height * width)
    scores, idxs = scores.topk(topk, dim=1)
    classes = idxs.div(height * width, rounding_mode="floor")
    cells = idxs - classes * (height * width)  # ONNX has no remainder by a size
    places = cells_of(height, width, cells.device)[cells]
    at_cells = cells[:, None].expand(-1, 2, -1)
    offsets = at_least_float32(maps.offsets).flatten(2).gather(2, at_cells).transpose(1, 2)
    return Corners(
        scores=scores,
        classes=classes,
        embeddings=at_least_float32(maps.embeddings).flatten(1).gather(1, cells),
        # Where the published code ends: nothing lies left of or above the image.
        points=((places + offsets) * STRIDE).clamp(min=0),
    )


def pair_corners(
    top_left: Corners, bottom_right: Corners, limit: int, max_distance: float = 0.5
) -> CornerPairs:
    """The ``limit`` best pairs of a top left and a bottom right corner.

    A pair is of one class, its embeddings differ by at most ``max_distance``, and its bottom right
    corner lies to the right of the other and below it. Its score is the mean of the two.
    """
    a, b = top_left, bottom_right
    # What is no corner is of no class. (N, k, k) are only comparisons and one score.
    first_classes = torch.where(a.scores > 0, a.classes, -1)
    second_classes = torch.where(b.scores > 0, b.classes, -2)
    fits = first_classes[:, :, None] == second_classes[:, None, :]
    for axis in range(2):
        fits &= a.points[:, :, None, axis] < b.points[:, None, :, axis]
    distances = a.embeddings[:, :, None] - b.embeddings[:, None, :]
    fits &= distances.abs() <= max_distance
    scores = (a.scores / 2)[:, :, None] + (b.scores / 2)[:, None, :]
    scores = torch.where(fits, scores, 0.0).flatten(1)
    num_corners = b.scores.shape[1]
    limit = min(limit, a.scores.shape[1] * num_corners)
    scores, idxs = scores.topk(limit, dim=1)
    first, second = idxs.div(num_corners, rounding_mode="floor"), idxs % num_corners
    boxes = torch.cat(
        [
            corners.points.gather(1, index[:, :, None].expand(-1, -1, 2))
            for corners, index in ((a, first), (b, second))
        ],
        dim=2,
    )
    return CornerPairs(boxes, scores, a.classes.gather(1, first))
