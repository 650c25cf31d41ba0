"""ATSS: which locations are positive for which box, by the statistics of their IoUs."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..boxes import aligned_iou
from ..numerics import to_device
from ..structures import DenseAnchors, DensePredictions, GroundTruth, Matches
from .batch import Objects, claim
from .common import nothing_matched
from .grids import INSIDE_MARGIN, Grids, centers_of

__all__ = ["ATSSMatcher", "Candidates", "adaptive_thresholds"]


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
        matched = nothing_matched(anchors, truth)
        if sum(truth.counts) == 0:
            return Matches(matched)

        objects = Objects.of(truth)
        candidates = self._candidates(anchors, objects, truth.image_sizes)
        values = self._values(anchors, predictions, objects, candidates)
        positive = _adaptive_positives(anchors, objects.boxes, candidates, values)
        slots = objects.images[:, None] * len(anchors.boxes) + candidates.idxs
        claimed = torch.where(positive, slots, matched.numel())
        matched = claim(matched, claimed, values, objects)
        if self.match_every_box:
            values = torch.where(candidates.exists, values, -1.0)
            matched = _match_the_rest(matched, slots, values, objects.firsts)
        return Matches(matched)

    def _values(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions | None,
        objects: Objects,
        candidates: "Candidates",
    ) -> Tensor:
        """(G, T) float64: how good each candidate is, at least 0."""
        return aligned_iou(anchors.boxes[candidates.idxs].double(), objects.boxes[:, None])

    def _candidates(
        self,
        anchors: DenseAnchors,
        objects: Objects,
        image_sizes: Sequence[tuple[int, int]] | None,
    ) -> "Candidates":
        """The ``topk`` nearest anchors of each of the L levels for each of the G boxes."""
        boxes, k = objects.boxes, self.topk
        # (P, 2) pairs of ranks (row, column) among which the k nearest cells are
        ranks = to_device([(i, j) for i in range(k) for j in range(k // (i + 1))], objects.images)
        grids = Grids.of(anchors, objects, image_sizes)
        limits, strides = grids.limits, grids.strides

        # Ranked columns and rows: (G, L, 2, k), nearest first, the lower index first among equals
        position = (centers_of(boxes)[:, None] - grids.origins) / strides
        first = torch.minimum((position - k / 2).ceil(), limits - k).clamp_(min=0)
        cells = first[..., None] + torch.arange(k, device=boxes.device)
        offsets = (cells - position[..., None]).abs_().mul_(strides[..., None])
        offsets.masked_fill_(cells >= limits[..., None], float("inf"))
        offsets, order = _sort_distances(offsets)
        cells = cells.gather(-1, order).long()

        # (G, L, P) the pairs of columns and rows, as indices and by distance
        offsets.square_()
        shape = (len(boxes), len(grids.starts), len(ranks))
        rows, columns = (r.expand(shape) for r in ranks.t().contiguous())
        idxs = cells[:, :, 1].gather(-1, rows).mul_(grids.widths)
        idxs.add_(cells[:, :, 0].gather(-1, columns))
        distances = offsets[:, :, 1].gather(-1, rows).add_(offsets[:, :, 0].gather(-1, columns))
        # Nearest k, the lowest index first among equally near: sort by index, then by distance
        idxs, order = idxs.sort(dim=-1)
        distances, order = _sort_distances(distances.gather(-1, order))
        exists = distances[..., :k].isfinite()
        idxs = (idxs.gather(-1, order[..., :k]) + grids.starts[:, None]).mul_(exists)
        return Candidates(idxs.flatten(1), exists.flatten(1))


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
    if sum(truth.counts) == 0:
        return anchors.boxes.new_zeros(0, dtype=torch.float64)
    objects = Objects.of(truth)
    candidates = ATSSMatcher(topk)._candidates(anchors, objects, truth.image_sizes)
    ious = aligned_iou(anchors.boxes[candidates.idxs].double(), objects.boxes[:, None])
    return _thresholds(ious, candidates.exists)[:, 0]


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


class Candidates(NamedTuple):
    """Candidates of each box over all levels, T a box.

    Attributes:
        idxs: (G, T) location index.
        exists: (G, T) False where a level had fewer locations than topk.
    """

    idxs: Tensor
    exists: Tensor


def _adaptive_positives(
    anchors: DenseAnchors, boxes: Tensor, candidates: Candidates, values: Tensor
) -> Tensor:
    """(G, T) which candidates are positive, by their values (G, T)."""
    centers = centers_of(anchors.boxes[candidates.idxs].double())
    left_top = (centers - boxes[:, None, :2]).amin(dim=-1)
    right_bottom = (boxes[:, None, 2:] - centers).amin(dim=-1)
    inside = torch.minimum(left_top, right_bottom) > INSIDE_MARGIN
    return candidates.exists & inside & (values >= _thresholds(values, candidates.exists))


def _thresholds(values: Tensor, exists: Tensor) -> Tensor:
    """(G, 1) mean plus standard deviation of those of the values (G, T) that exist."""
    count = exists.sum(dim=1, keepdim=True)
    mean = (values * exists).sum(dim=1, keepdim=True) / count
    variance = ((values - mean).square() * exists).sum(dim=1, keepdim=True)
    variance /= (count - 1).clamp(min=1)
    return mean + variance.sqrt()
