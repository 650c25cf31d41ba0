"""ATSS: which locations are positive for which box, by the statistics of their IoUs."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..boxes import aligned_iou
from ..numerics import to_device
from ..structures import DenseAnchors, DensePredictions, GroundTruth, Matches
from .common import nothing_matched

__all__ = ["ATSSMatcher", "adaptive_thresholds"]

# A centre must lie inside its box by more than this, pixels, as in the official code.
_INSIDE_MARGIN = 0.01


class ATSSMatcher:
    """Adaptive Training Sample Selection (https://arxiv.org/abs/1912.02424, Alg. 1).

    For each box, the ``topk`` anchors of each level with the nearest centres are candidates. (A
    small level gives all its anchors. Of equally near ones the lowest index counts as nearer.) A
    candidate is positive if its centre lies inside the box, and its IoU with the box reaches the
    mean plus the (unbiased) standard deviation of the candidates' IoUs. An anchor that is positive
    for several boxes goes to the box of highest IoU, or to the first of equal ones.

    No box-by-anchor matrix is built. Rank the columns of a grid, and its rows, by distance from the
    box's centre. The cell at column rank i and row rank j has (i+1)(j+1)-1 cells that are at least
    as near on both axes. So the ``topk`` nearest are among the ranks with (i+1)(j+1) <= topk: 23
    cells for topk 9, wherever the centre lies. The search is linear in the number of boxes, and
    does not depend on the number of anchors. The geometry is computed in float64 for all images at
    once.

    Args:
        topk: k of the paper.
        match_every_box: also give an anchor to each box that has none, because it has no positive
            candidate or lost them to other boxes. It gets its candidate of highest IoU among those
            that are free or belong to a box with a further anchor. This is not in the paper, which
            leaves such boxes without a positive. It waits for a GPU.

    Raises:
        ValueError: if ``topk`` is less than 1.
    """

    def __init__(self, topk: int = 9, match_every_box: bool = False):
        if topk < 1:
            raise ValueError(f"topk is {topk}; expected at least 1")
        self.topk = topk
        self.match_every_box = match_every_box

    def __repr__(self) -> str:
        rest = ", match_every_box=True" if self.match_every_box else ""
        return f"{type(self).__name__}(topk={self.topk}{rest})"

    @torch.no_grad()
    def __call__(
        self,
        anchors: DenseAnchors,
        truth: GroundTruth,
        predictions: DensePredictions | None = None,
    ) -> Matches:
        """
        Args:
            anchors: one anchor a location, on a regular grid on each level.
            truth: N images, boxes in XYXY pixels; an image may have none. Locations beyond an
                image's own size (padding of the batch) are not candidates.
            predictions: not read.

        Returns:
            ``Matches`` without a quality.

        Raises:
            ValueError: if ``truth.image_sizes`` is not one size an image.
        """
        num_images, num_anchors = len(truth.boxes), len(anchors.boxes)
        matched = nothing_matched(anchors, truth)
        counts = truth.counts
        if sum(counts) == 0:
            return Matches(matched)

        boxes, image_idxs, firsts = _flattened(truth)
        index = torch.arange(len(boxes), device=boxes.device)
        candidates = self._candidates(anchors, boxes, image_idxs, truth.image_sizes)
        positive, ious = _adaptive_positives(anchors, boxes, candidates)

        # Each positive claims its anchor's slot in its image; all others claim one further slot.
        slots = image_idxs[:, None] * num_anchors + candidates.idxs
        slots = torch.where(positive, slots, num_images * num_anchors).flatten()
        claims = ious.flatten()
        best = claims.new_full((num_images * num_anchors + 1,), -1.0)
        best.scatter_reduce_(0, slots, claims, "amax")
        local_idxs = (index - firsts[image_idxs])[:, None].expand_as(ious).flatten()
        wins = claims == best[slots]
        never = len(boxes)
        winners = torch.full_like(best, never, dtype=torch.int64)
        winners.scatter_reduce_(0, slots, torch.where(wins, local_idxs, never), "amin")
        winners = winners[:-1].view_as(matched)
        matched = torch.where(winners < never, winners, matched)
        if self.match_every_box:
            slots = image_idxs[:, None] * num_anchors + candidates.idxs
            ious = torch.where(candidates.exists, ious, -1.0)
            matched = _match_the_rest(matched, slots, ious, firsts[image_idxs])
        return Matches(matched)

    def _candidates(
        self,
        anchors: DenseAnchors,
        boxes: Tensor,
        image_idxs: Tensor,
        image_sizes: Sequence[tuple[int, int]] | None,
    ) -> "_Candidates":
        """The ``topk`` nearest anchors of each of the L levels for each of the G boxes."""
        num_boxes, k = len(boxes), self.topk
        # (P, 2) pairs of ranks (row, column) among which the k nearest cells are
        ranks = to_device([(i, j) for i in range(k) for j in range(k // (i + 1))], image_idxs)
        # (L,) index of each level's first cell, (L, 2) its centre, columns and rows; (L, 1) stride
        sizes = anchors.level_sizes
        starts = to_device([sum(sizes[:i]) if n else 0 for i, n in enumerate(sizes)], image_idxs)
        origins, strides = _centers(anchors.boxes[starts].double()), anchors.strides[starts, None]
        limits = to_device([(w, h) for h, w in anchors.level_shapes], boxes)
        widths = limits[:, :1].long()
        if image_sizes is not None:  # the part of the grid that the box's image reaches
            reached = to_device([(w, h) for h, w in image_sizes], boxes)[image_idxs, None]
            limits = torch.minimum((reached / strides).ceil(), limits)

        # Ranked columns and rows: (G, L, 2, k), nearest first, the lower index first among equals
        position = (_centers(boxes)[:, None] - origins) / strides
        first = torch.minimum((position - k / 2).ceil(), limits - k).clamp_(min=0)
        cells = first[..., None] + torch.arange(k, device=boxes.device)
        offsets = (cells - position[..., None]).abs_().mul_(strides[..., None])
        offsets.masked_fill_(cells >= limits[..., None], float("inf"))
        offsets, order = _sort_distances(offsets)
        cells = cells.gather(-1, order).long()

        # (G, L, P) the pairs of columns and rows, as indices and by distance
        offsets.square_()
        shape = (num_boxes, len(sizes), len(ranks))
        rows, columns = (r.expand(shape) for r in ranks.t().contiguous())
        idxs = cells[:, :, 1].gather(-1, rows).mul_(widths).add_(cells[:, :, 0].gather(-1, columns))
        distances = offsets[:, :, 1].gather(-1, rows).add_(offsets[:, :, 0].gather(-1, columns))
        # Nearest k, the lowest index first among equally near: sort by index, then by distance
        idxs, order = idxs.sort(dim=-1)
        distances, order = _sort_distances(distances.gather(-1, order))
        exists = distances[..., :k].isfinite()
        idxs = (idxs.gather(-1, order[..., :k]) + starts[:, None]).mul_(exists)
        return _Candidates(idxs.flatten(1), exists.flatten(1))


@torch.no_grad()
def adaptive_thresholds(anchors: DenseAnchors, truth: GroundTruth, topk: int = 9) -> Tensor:
    """The IoU from which on a candidate of a box is positive: mean plus standard deviation of the
    IoUs of its candidates.

    Args:
        anchors, truth: as for :class:`ATSSMatcher`.
        topk: as there.

    Returns:
        (G,) float64, for the boxes of all images in order.
    """
    boxes, image_idxs, _ = _flattened(truth)
    if len(boxes) == 0:
        return boxes.new_zeros(0)
    candidates = ATSSMatcher(topk)._candidates(anchors, boxes, image_idxs, truth.image_sizes)
    return _ious_and_thresholds(anchors, boxes, candidates)[1]


def _flattened(truth: GroundTruth) -> tuple[Tensor, Tensor, Tensor]:
    """(G, 4) the boxes of all images in float64, (G,) the image of each, and (N,) the index of the
    first box of each image."""
    boxes = torch.cat([b.tensor for b in truth.boxes]).double()
    index = torch.arange(len(boxes), device=boxes.device)
    ends = to_device(truth.counts, index).cumsum(0)
    firsts = torch.nn.functional.pad(ends, (1, 0))[:-1]
    return boxes, torch.bucketize(index, ends, right=True), firsts


def _match_the_rest(matched: Tensor, slots: Tensor, ious: Tensor, firsts: Tensor) -> Tensor:
    """``matched`` (N, R) with a location for each box that has none.

    ``slots`` (G, T) are places of candidates in the flattened ``matched``. ``ious`` (G, T) are
    their IoUs, negative if there is no candidate. ``firsts`` (G,) is the index of the first box of
    a box's image.
    """
    values, order = ious.sort(dim=1, descending=True, stable=True)
    ranked: list[list[int]] = [
        row[: sum(value >= 0 for value in of_row)]
        for row, of_row in zip(slots.gather(1, order).tolist(), values.tolist())
    ]
    best, result = values[:, 0].tolist(), matched.flatten().tolist()
    first_of: list[int] = firsts.tolist()
    held = [
        sum(result[slot] == box - first for slot in row)
        for box, (row, first) in enumerate(zip(ranked, first_of))
    ]
    rest = [box for box, count in enumerate(held) if count == 0]
    for box in sorted(rest, key=lambda box: -best[box]):
        first = first_of[box]
        for slot in ranked[box]:
            taken = result[slot] >= 0
            if taken and held[first + result[slot]] == 1:
                continue
            if taken:
                held[first + result[slot]] -= 1
            result[slot], held[box] = box - first, 1
            break
    return matched.new_tensor(result).view_as(matched)


def _sort_distances(distances: Tensor) -> tuple[Tensor, Tensor]:
    """Sorts (..., n) float64 that are not negative, stably. Their bits, read as integers, have the
    same order. Integers sort in half the time, because they have no NaN."""
    bits, order = distances.view(torch.int64).sort(dim=-1, stable=True)
    return bits.view(torch.float64), order


def _centers(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


class _Candidates(NamedTuple):
    """Candidates of each box over all levels, T a box.

    Attributes:
        idxs: (G, T) location index.
        exists: (G, T) False where a level had fewer locations than topk.
    """

    idxs: Tensor
    exists: Tensor


def _adaptive_positives(
    anchors: DenseAnchors, boxes: Tensor, candidates: _Candidates
) -> tuple[Tensor, Tensor]:
    """(G, T) which candidates are positive, and (G, T) their IoUs."""
    ious, thresholds = _ious_and_thresholds(anchors, boxes, candidates)
    centers = _centers(anchors.boxes[candidates.idxs].double())
    left_top = (centers - boxes[:, None, :2]).amin(dim=-1)
    right_bottom = (boxes[:, None, 2:] - centers).amin(dim=-1)
    inside = torch.minimum(left_top, right_bottom) > _INSIDE_MARGIN
    return candidates.exists & inside & (ious >= thresholds[:, None]), ious


def _ious_and_thresholds(
    anchors: DenseAnchors, boxes: Tensor, candidates: _Candidates
) -> tuple[Tensor, Tensor]:
    """(G, T) IoUs of the candidates, and (G,) their mean plus standard deviation."""
    ious = aligned_iou(anchors.boxes[candidates.idxs].double(), boxes[:, None])
    exists = candidates.exists
    count = exists.sum(dim=1, keepdim=True)
    mean = (ious * exists).sum(dim=1, keepdim=True) / count
    variance = ((ious - mean).square() * exists).sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
    return ious, (mean + variance.sqrt())[:, 0]
