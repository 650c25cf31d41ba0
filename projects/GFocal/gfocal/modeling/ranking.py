"""The best (location, class) pairs of a batch: above a threshold, and at most so many a level."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .numerics import at_least_float32, joint_logits
from .structures import DensePredictions

__all__ = ["Ranked", "best_of_predictions", "best_of_scores"]


class Ranked(NamedTuple):
    """The T best pairs of a batch, image after image.

    Attributes:
        image_idxs, location_idxs, classes, scores: (T,).
        counts: number of pairs of each image.
    """

    image_idxs: Tensor
    location_idxs: Tensor
    classes: Tensor
    scores: Tensor
    counts: list[int]


def best_of_predictions(
    predictions: DensePredictions,
    level_sizes: list[int],
    score_thresh: float | tuple[float, ...],
    topk: int,
) -> Ranked:
    """The best pairs of logits; no dense score is computed.

    Args:
        predictions: of the batch.
        level_sizes: number of locations of each level.
        score_thresh: of all classes, or of each of the K.
        topk: at most so many pairs a level.
    """
    cls_logits, quality_logits = at_least_float32(predictions.cls_logits), None
    if predictions.quality_logits is not None:
        quality_logits = at_least_float32(predictions.quality_logits)
    # sigmoid(cls) * sigmoid(quality) > t is cls > logit(t / sigmoid(quality)). So one comparison of
    # the best class with a threshold, less a margin for rounding, finds the few locations that can
    # pass.
    lowest = min(score_thresh) if isinstance(score_thresh, tuple) else score_thresh
    thresh = torch.as_tensor(lowest, dtype=cls_logits.dtype)
    if quality_logits is not None:
        thresh = thresh / quality_logits.sigmoid()
    passed = cls_logits.amax(dim=-1, keepdim=True) > thresh.clamp(0, 1).logit() - 1e-3
    idxs = passed.flatten().nonzero().squeeze(1)
    logits = cls_logits.flatten(0, 1)[idxs]
    if quality_logits is not None:
        logits = joint_logits(logits, quality_logits.flatten(0, 1)[idxs])
    return _best(idxs, logits.sigmoid(), cls_logits.shape, level_sizes, score_thresh, topk)


def best_of_scores(
    scores: Tensor, level_sizes: list[int], score_thresh: float | tuple[float, ...], topk: int
) -> Ranked:
    """The best pairs of scores (N, R, K). The other arguments are those of
    :func:`best_of_predictions`."""
    scores = at_least_float32(scores)
    lowest = min(score_thresh) if isinstance(score_thresh, tuple) else score_thresh
    idxs = (scores.amax(dim=-1) > lowest).flatten().nonzero().squeeze(1)
    of_rows = scores.flatten(0, 1)[idxs]
    return _best(idxs, of_rows, scores.shape, level_sizes, score_thresh, topk)


def _best(
    rows: Tensor,
    scores: Tensor,
    shape: torch.Size,
    level_sizes: list[int],
    score_thresh: float | tuple[float, ...],
    topk: int,
) -> Ranked:
    """Of ``scores`` (B, K) at ``rows`` (B,), places among the N * R locations of ``shape``."""
    if isinstance(score_thresh, tuple):
        passed = scores > scores.new_tensor(score_thresh)
    else:
        passed = scores > score_thresh
    kept, classes = passed.nonzero(as_tuple=True)
    idxs, scores = rows[kept], scores[kept, classes]

    # Each level of each image is a run of idxs. The topk best of a run stay.
    num_images, num_locations = shape[:2]
    firsts = torch.tensor([0, *level_sizes[:-1]]).cumsum(0)
    firsts = firsts + num_locations * torch.arange(num_images)[:, None]
    starts = torch.searchsorted(idxs, firsts.flatten().to(idxs.device, non_blocking=True))
    runs = list(pairwise([*starts.tolist(), len(idxs)]))
    lengths = [min(topk, end - start) for start, end in runs]
    if sum(lengths) < len(idxs):
        keep = torch.cat(
            [start + scores[start:end].topk(n).indices for (start, end), n in zip(runs, lengths)]
        )
        idxs, classes, scores = idxs[keep], classes[keep], scores[keep]
    levels = len(level_sizes)
    counts = [sum(lengths[i : i + levels]) for i in range(0, len(lengths), levels)]
    images, locations = idxs.div(num_locations, rounding_mode="floor"), idxs % num_locations
    return Ranked(images, locations, classes, scores, counts)
