"""TOOD: the locations that predict class and box of an object best, both together."""

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..contracts import Matcher
from ..numerics import to_device
from ..settings import COUNT, NOT_NEGATIVE, check_setting, check_settings
from ..structures import DenseAnchors, DensePredictions, GroundTruth, Matches
from .atss import ATSSMatcher
from .batch import Objects, claim, predicted_scores_and_ious
from .common import nothing_matched
from .grids import INSIDE_MARGIN, Grids, Pairs

__all__ = ["TaskAlignedMatcher"]


class TaskAlignedMatcher:
    """Task-aligned assignment (TOOD, https://arxiv.org/abs/2108.07755, Sec. 3.2).

    How well a location predicts a box is t = s^alpha * u^beta. s is its joint score for the box's
    class, and u the IoU of its predicted box with the box. Of the locations whose centre lies
    inside the box, the ``topk`` of largest t are positive, unless t is 0. (Of equal t the lowest
    index is larger; they are ranked in float32.) A location of several boxes goes to that of
    highest u, or to the first of equal ones.

    The quality is t, scaled for each box so that its largest is the largest u among the positives
    that the box has kept. It is meant as the label of the class, as the weight in the losses of
    boxes, and its sum as the divisor of all: ``recipes.use(model, matcher="task_aligned")``.

    No box-by-location matrix is built. The locations inside a box are a window of each level's
    grid. Its rows are runs of consecutive locations, so the pairs of a box and a location inside
    it are enumerated, for all boxes of the batch at once: time and memory are linear in their
    number. It waits for a GPU twice: for the number of pairs, and of the locations in them.

    mmdetection takes the ``topk`` of all locations, and drops those that lie outside the box. It
    adds 1e-7 to the largest t, so that labels vanish where that is less.

    Args:
        topk, alpha, beta: of the paper.
        warmup_iters: so many iterations from the start of a training, ``warmup`` answers, as scores
            tell nothing yet; TOOD's are 4 of 12 epochs. The iteration is that of Detectron2's event
            storage: a resumed training goes on, and outside of a training there is no warm-up.
        warmup: another matcher; by default ``ATSSMatcher()``. If it gives no quality, that is the
            IoU of the predicted box.

    Raises:
        ValueError: if ``topk`` is no positive integer, or another is no finite number of at least
            0.
    """

    def __init__(
        self,
        topk: int = 13,
        alpha: float = 1.0,
        beta: float = 6.0,
        warmup_iters: int = 0,
        warmup: Matcher | None = None,
    ):
        check_setting("topk", topk, COUNT)
        check_settings(NOT_NEGATIVE, alpha=alpha, beta=beta, warmup_iters=warmup_iters)
        self.topk = topk
        self.alpha = alpha
        self.beta = beta
        self.warmup_iters = warmup_iters
        self.warmup = ATSSMatcher() if warmup is None else warmup

    def __repr__(self) -> str:
        numbers = f"topk={self.topk}, alpha={self.alpha}, beta={self.beta}"
        warmup = f", warmup_iters={self.warmup_iters}, warmup={self.warmup}"
        return f"{type(self).__name__}({numbers}{warmup if self.warmup_iters else ''})"

    @torch.no_grad()
    def __call__(
        self, anchors: DenseAnchors, truth: GroundTruth, predictions: DensePredictions
    ) -> Matches:
        """
        Args:
            anchors: one anchor a location, on a regular grid on each level. Their centres and
                strides are read.
            truth: N images, boxes in XYXY pixels; an image may have none. Locations beyond an
                image's own size (padding of the batch) take no place among the ``topk``.
            predictions: of the batch.

        Returns:
            ``Matches`` with a quality: 0 where a location is not positive.

        Raises:
            ValueError: if ``truth.image_sizes`` is not one size an image.
        """
        if _iteration() < self.warmup_iters:
            return self._warmup_matches(anchors, truth, predictions)
        matched = nothing_matched(anchors, truth)
        dtype = torch.promote_types(predictions.cls_logits.dtype, torch.float32)
        quality = torch.zeros_like(matched, dtype=dtype)
        if sum(truth.counts) == 0:
            return Matches(matched, quality)
        objects = Objects.of(truth)
        grids = Grids.of(anchors, objects, truth.image_sizes)
        sides = objects.boxes[:, None]
        pairs = Pairs.of(grids, grids.inside(sides[..., :2], sides[..., 2:], INSIDE_MARGIN))
        if len(pairs.boxes) == 0:
            return Matches(matched, quality)

        scores, ious = predicted_scores_and_ious(
            anchors, predictions, objects, pairs.boxes, pairs.locations
        )
        aligned = scores.pow_(self.alpha).mul_(ious.pow(self.beta))

        # Each box's best: (G, topk) t, IoU and slot, N * R where it has fewer
        best, exists = _best_of_each_box(aligned, pairs, self.topk)
        aligned, ious = aligned[best], ious[best]
        slots = objects.images[:, None] * matched.shape[1] + pairs.locations[best]
        slots = torch.where(exists & (aligned > 0), slots, matched.numel())
        matched = claim(matched, slots, ious, objects)

        # What each box has kept of them
        owners = torch.nn.functional.pad(matched.flatten(), (0, 1), value=-1)[slots]
        kept = owners == objects.idxs[:, None]
        aligned, ious = aligned * kept, ious * kept
        least = torch.finfo(dtype).tiny
        labels = aligned / aligned.amax(dim=1, keepdim=True).clamp(min=least)
        labels *= ious.amax(dim=1, keepdim=True)
        quality = torch.nn.functional.pad(quality.flatten(), (0, 1))
        quality.scatter_reduce_(0, slots.flatten(), labels.flatten(), "amax")
        return Matches(matched, quality[:-1].view_as(matched))

    def _warmup_matches(
        self, anchors: DenseAnchors, truth: GroundTruth, predictions: DensePredictions
    ) -> Matches:
        """The answer of ``warmup``, with a quality."""
        matches = self.warmup(anchors, truth, predictions)
        if matches.quality is not None:
            return matches
        dtype = torch.promote_types(predictions.cls_logits.dtype, torch.float32)
        quality = torch.zeros_like(matches.idxs, dtype=dtype)
        images, locations = (matches.idxs >= 0).nonzero(as_tuple=True)
        if len(images):
            firsts = to_device([0, *truth.counts[:-1]], images).cumsum(0)
            owners = matches.idxs[images, locations] + firsts[images]
            objects = Objects.of(truth)
            _, ious = predicted_scores_and_ious(anchors, predictions, objects, owners, locations)
            quality[images, locations] = ious
        return matches._replace(quality=quality)


def _iteration() -> float:
    """That of the training, or infinity outside of one."""
    try:
        return get_event_storage().iter
    except AssertionError:  # there is no storage
        return float("inf")


def _best_of_each_box(values: Tensor, pairs: Pairs, topk: int) -> tuple[Tensor, Tensor]:
    """(G, topk) places of the largest of P values that are not negative, and where there is one."""
    # One sort of integers. The bits of float32 have the order of the numbers; the box stands above.
    keys = (pairs.boxes << 32) - values.float().view(torch.int32)
    order = keys.sort(stable=True).indices
    ranks = torch.arange(topk, device=values.device)
    counts = pairs.counts[:, None]
    places = (counts.cumsum(0) - counts + ranks).clamp_(max=len(values) - 1)
    return order[places], ranks < counts
