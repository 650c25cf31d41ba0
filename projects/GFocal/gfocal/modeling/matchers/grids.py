"""Where boxes lie on the regular grids of the levels: windows of columns and rows.

G boxes of the batch, L levels, R locations, P pairs of a box and a location. Boxes are XYXY pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics import to_device
from ..structures import DenseAnchors
from .batch import Objects

__all__ = ["INSIDE_MARGIN", "Grids", "Pairs", "Windows", "centers_of"]

# A centre must lie inside its box by more than this, pixels, as in the official code of ATSS.
INSIDE_MARGIN = 0.01


class Windows(NamedTuple):
    """The first and the last column and row (G, L, 2) of windows; the last may lie before."""

    first: Tensor
    last: Tensor

    def __and__(self, other: "Windows") -> "Windows":
        return Windows(torch.maximum(self.first, other.first), torch.minimum(self.last, other.last))


class Grids(NamedTuple):
    """The regular grids of the levels, columns before rows.

    Attributes:
        starts: (L,) index of a level's first location.
        origins: (L, 2) its centre, float64.
        strides: (L, 1).
        widths: (L, 1) columns of a level.
        limits: (G, L, 2), or (L, 2) for all alike: how many columns and rows lie on the image of a
            box.
    """

    starts: Tensor
    origins: Tensor
    strides: Tensor
    widths: Tensor
    limits: Tensor

    @classmethod
    def of(
        cls,
        anchors: DenseAnchors,
        objects: Objects,
        image_sizes: Sequence[tuple[int, int]] | None,
    ) -> "Grids":
        """Those of a batch. ``image_sizes`` are (height, width), or None without padding."""
        sizes = anchors.level_sizes
        starts = to_device(
            [sum(sizes[:i]) if n else 0 for i, n in enumerate(sizes)], objects.images
        )
        origins, strides = centers_of(anchors.boxes[starts].double()), anchors.strides[starts, None]
        limits = to_device([(w, h) for h, w in anchors.level_shapes], objects.boxes)
        widths = limits[:, :1].long()
        if image_sizes is not None:  # the part of the grid that the box's image reaches
            sizes_of_images = to_device([(w, h) for h, w in image_sizes], objects.boxes)
            reached = sizes_of_images[objects.images, None]
            limits = torch.minimum((reached / strides).ceil(), limits)
        return cls(starts, origins, strides, widths, limits)

    def inside(self, left_top: Tensor, right_bottom: Tensor, margin: float = 0.0) -> Windows:
        """The locations whose centre lies inside boxes by more than ``margin`` pixels, on the image
        of the box.

        Args:
            left_top, right_bottom: (G, L, 2), or (G, 1, 2) for boxes that are alike on all levels.
            margin: in pixels.
        """
        # A division may round. So the difference from the centre decides.
        first = ((left_top + margin - self.origins) / self.strides).floor_().clamp_(min=0)
        last = ((right_bottom - margin - self.origins) / self.strides).ceil_()
        last = torch.minimum(last, self.limits - 1)
        before = self.origins + first * self.strides - left_top <= margin
        behind = right_bottom - (self.origins + last * self.strides) <= margin
        return Windows(first.long() + before.long(), last.long() - behind.long())


class Pairs(NamedTuple):
    """Pairs of a box and a location: box after box, locations in order.

    Attributes:
        boxes: (P,) in 0..G-1.
        locations: (P,) in 0..R-1.
        counts: (G,) how many of each box.
    """

    boxes: Tensor
    locations: Tensor
    counts: Tensor

    @classmethod
    def of(cls, grids: Grids, windows: Windows) -> "Pairs":
        """The locations in the windows of each box. It waits for a GPU once: for their number."""
        first_column, first_row = windows.first.unbind(dim=-1)  # (G, L)
        columns, rows = (windows.last - windows.first + 1).clamp_(min=0).unbind(dim=-1)
        counts = (columns * rows).sum(dim=1)
        rows = torch.where(columns > 0, rows, 0)
        num_runs, num_pairs = torch.stack([rows.sum(), counts.sum()]).tolist()
        # A row of a window is a run of consecutive locations.
        window, row = _spread(rows.flatten(), num_runs)
        widths = grids.widths[:, 0]
        begins = (grids.starts + first_row * widths + first_column).flatten()[window]
        begins += row * widths.expand_as(rows).flatten()[window]
        run, column = _spread(columns.flatten()[window], num_pairs)
        boxes = window.div_(len(widths), rounding_mode="floor")
        return cls(boxes[run], column.add_(begins[run]), counts)


def centers_of(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 2)"""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _spread(counts: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """For ``counts`` things of each kind, together ``total``: the kind of each, and its number
    among those of its kind."""
    kinds = torch.repeat_interleave(counts, output_size=total)
    index = torch.arange(total, device=counts.device)
    return kinds, index - (counts.cumsum(0) - counts)[kinds]
