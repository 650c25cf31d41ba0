"""SSD's matcher: a prior is positive for the box that it overlaps most, if by enough.

No matrix of all boxes and all priors is made. The priors of a level form a grid. So the width of an
overlap depends on the column only, and its height on the row only. The best overlap of a box with a
shape is the widest times the highest one. This bound tells the few (box, level, shape) that can
have a match, and only their grids are computed.

N images, G boxes of the whole batch, R priors, A shapes at a location. Boxes are XYXY pixels.

Source: SSD (https://arxiv.org/abs/1512.02325), Sec. 2.2, "Matching strategy".
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..numerics import to_device
from ..priors import PriorBoxes
from ..structures import BACKGROUND, IGNORED, GroundTruth, Matches

__all__ = ["MaxIoUMatcher"]


class MaxIoUMatcher:
    """Matches priors to boxes by IoU.

    - A prior takes the box with which its IoU is largest, if that is at least ``iou_thresh``. Of
      boxes with equal IoU it takes the first.
    - Each box takes its best prior, however small their IoU is and whatever that prior had; of
      priors with equal IoU the first. If a prior is the best one of several boxes, the last box has
      it.
    - A box that overlaps no prior takes none.
    - Priors on the padding of the batch are ignored, and no box takes them. All others are
      background.

    This is what mmdetection does. Detectron2's ``Matcher([t], [0, 1],
    allow_low_quality_matches=True)`` differs in the second rule: all priors that tie for the best
    become positive, and a prior that becomes positive by it is matched to the box that it overlaps
    most, which may be another.

    Args:
        iou_thresh: in (0, 1].

    Raises:
        ValueError: for another threshold.
    """

    # IoUs a piece: temporaries of 1 MB in float32.
    PIECE = 2**18
    # The bounds are computed in another order than the IoUs, and so rounded differently.
    MARGIN = 1e-4

    def __init__(self, iou_thresh: float = 0.5):
        if not 0 < iou_thresh <= 1:
            raise ValueError(f"iou_thresh is {iou_thresh}; expected a number above 0, at most 1")
        self.iou_thresh = iou_thresh

    @torch.no_grad()
    def __call__(self, priors: PriorBoxes, truth: GroundTruth, predictions: Any = None) -> Matches:
        """
        Args:
            priors: of the batch.
            truth: its N images.
            predictions: not read.

        Returns:
            ``Matches`` with idxs (N, R).
        """
        shape = (len(truth.boxes), len(priors.boxes))
        idxs = torch.full(shape, BACKGROUND, device=priors.boxes.device)
        if truth.image_sizes is not None:
            idxs[~priors.inside(truth.image_sizes)] = IGNORED
        if sum(truth.counts) == 0:
            return Matches(idxs)
        counts = to_device(truth.counts, idxs)
        images = torch.arange(len(counts), device=idxs.device).repeat_interleave(
            counts, output_size=sum(truth.counts)
        )
        firsts = (counts.cumsum(0) - counts)[images]
        boxes = _Boxes(
            sides=torch.cat([x.tensor for x in truth.boxes]).to(priors.boxes.dtype),
            images=images,
            idxs=torch.arange(len(images), device=idxs.device) - firsts,
        )
        close, candidates = self._pairs(_levels(priors, truth.image_sizes), boxes)
        _take_best_box(idxs, boxes, close)
        _take_best_prior(idxs, boxes, candidates)
        return Matches(idxs)

    def _pairs(self, levels: Sequence["_Level"], boxes: "_Boxes") -> tuple["_Pairs", "_Pairs"]:
        """The pairs that overlap by at least the threshold; and candidates for the best prior of
        each box."""
        bounds = [level.bounds(boxes.sides, boxes.images) for level in levels]  # (G, A) each
        best = torch.cat(bounds, dim=1).amax(dim=1, keepdim=True)
        worth = best.clamp(max=self.iou_thresh) - self.MARGIN
        close, tops = [], []
        for level, bound in zip(levels, bounds):
            box_idxs, shape_idxs = (bound >= worth).nonzero(as_tuple=True)
            step = max(1, self.PIECE // level.num_cells)
            for b, a in zip(box_idxs.split(step), shape_idxs.split(step)):
                ious = level.ious(boxes.sides[b], boxes.images[b], a)  # (P, cells)
                rows, cells = (ious >= self.iou_thresh).nonzero(as_tuple=True)
                close.append(_Pairs(b[rows], level.priors(cells, a[rows]), ious[rows, cells]))
                top, cells = ious.max(dim=1)
                tops.append(_Pairs(b, level.priors(cells, a), top))
        return _Pairs(*map(torch.cat, zip(*close))), _Pairs(*map(torch.cat, zip(*tops)))


def _take_best_box(idxs: Tensor, boxes: "_Boxes", close: "_Pairs") -> None:
    """Each prior takes the best of the boxes that are close to it, the first of equals."""
    places = boxes.images[close.boxes] * idxs.shape[1] + close.priors
    largest = close.ious.new_zeros(idxs.numel()).scatter_reduce(0, places, close.ious, "amax")
    is_best = close.ious == largest[places]
    taken = boxes.idxs[close.boxes[is_best]]
    idxs.view(-1).scatter_reduce_(0, places[is_best], taken, "amin", include_self=False)


def _take_best_prior(idxs: Tensor, boxes: "_Boxes", candidates: "_Pairs") -> None:
    """Each box takes its best prior, the first of equals; of several boxes the last has it."""
    num_priors = idxs.shape[1]
    top = candidates.ious.new_zeros(len(boxes.images))
    top = top.scatter_reduce(0, candidates.boxes, candidates.ious, "amax")
    is_best = (candidates.ious == top[candidates.boxes]) & (candidates.ious > 0)
    first = torch.full_like(boxes.images, num_priors).scatter_reduce(
        0, candidates.boxes[is_best], candidates.priors[is_best], "amin"
    )
    has_one = first < num_priors
    places = (boxes.images * num_priors + first)[has_one]
    idxs.view(-1).scatter_reduce_(0, places, boxes.idxs[has_one], "amax", include_self=False)


class _Boxes(NamedTuple):
    """The G boxes of the batch: sides (G, 4), images (G,), and idxs (G,) among those of theirs."""

    sides: Tensor
    images: Tensor
    idxs: Tensor


class _Pairs(NamedTuple):
    """Boxes (P,) in 0..G-1, priors (P,) in 0..R-1 and their IoUs (P,)."""

    boxes: Tensor
    priors: Tensor
    ious: Tensor


class _Level(NamedTuple):
    """The grid of priors of one level.

    Attributes:
        x: (2, A, W) left and right sides of the priors of each shape, by columns.
        y: (2, A, H) their upper and lower sides, by rows.
        on_x, on_y: (N, W) and (N, H), the columns and rows that lie on each image; None for all.
        first: index of the level's first prior.
    """

    x: Tensor
    y: Tensor
    on_x: Tensor | None
    on_y: Tensor | None
    first: int

    @property
    def num_cells(self) -> int:
        return self.x.shape[-1] * self.y.shape[-1]

    def priors(self, cells: Tensor, shapes: Tensor) -> Tensor:
        """Their indices in 0..R-1."""
        return self.first + cells * self.x.shape[1] + shapes

    def bounds(self, boxes: Tensor, images: Tensor) -> Tensor:
        """(G, A) the largest IoU of each box with a prior of each shape, up to rounding."""
        widths = self._overlaps(self.x, boxes[:, None, 0::2], self.on_x, images).amax(dim=-1)
        heights = self._overlaps(self.y, boxes[:, None, 1::2], self.on_y, images).amax(dim=-1)
        inner = widths * heights
        areas = (self.x[1] - self.x[0])[:, 0] * (self.y[1] - self.y[0])[:, 0]
        return inner / (areas + _areas(boxes)[:, None] - inner)

    def ious(self, boxes: Tensor, images: Tensor, shapes: Tensor) -> Tensor:
        """(P, H * W) the IoUs of P pairs of a box and a shape, at every location; 0 on padding."""
        x, y = self.x[:, shapes], self.y[:, shapes]
        widths = self._overlaps(x, boxes[:, 0::2], self.on_x, images)
        heights = self._overlaps(y, boxes[:, 1::2], self.on_y, images)
        inner = heights[:, :, None] * widths[:, None]  # (P, H, W)
        union = (y[1] - y[0])[:, :, None] * (x[1] - x[0])[:, None]
        union = union.add_(_areas(boxes)[:, None, None]).sub_(inner)
        return inner.div_(union).flatten(1)

    @staticmethod
    def _overlaps(sides: Tensor, of_boxes: Tensor, on: Tensor | None, images: Tensor) -> Tensor:
        """Overlaps along one axis: (..., cells), from sides (2, ..., cells) of priors and (..., 2)
        of boxes."""
        ends = torch.minimum(sides[1], of_boxes[..., 1:])
        ret = ends.sub_(torch.maximum(sides[0], of_boxes[..., :1])).clamp_(min=0)
        if on is None:
            return ret
        on = on[images]
        return ret.mul_(on if ret.dim() == 2 else on[:, None])


def _levels(priors: PriorBoxes, image_sizes: Sequence[tuple[int, int]] | None) -> list[_Level]:
    """The grids of the levels, and which part of each lies on which image."""
    levels, first = [], 0
    for boxes, (rows, columns), count, stride in zip(
        priors.boxes.split(priors.level_sizes),
        priors.level_shapes,
        priors.num_shapes,
        priors.strides,
    ):
        grid = boxes.view(rows, columns, count, 4)
        x, y = grid[0, :, :, 0::2].permute(2, 1, 0), grid[:, 0, :, 1::2].permute(2, 1, 0)
        on_x = on_y = None
        last_y, last_x = (rows - 1) * stride, (columns - 1) * stride
        if image_sizes and any(h <= last_y or w <= last_x for h, w in image_sizes):
            limits = to_device(list(image_sizes), boxes)
            on_y, on_x = (
                torch.arange(n, device=boxes.device) * stride < limits[:, axis, None]
                for axis, n in enumerate((rows, columns))
            )
        levels.append(_Level(x.contiguous(), y.contiguous(), on_x, on_y, first))
        first += len(boxes)
    return levels


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
