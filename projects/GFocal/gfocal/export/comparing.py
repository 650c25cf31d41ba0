"""Two answers to the same images, compared: detections with detections, or with candidates."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torchvision.ops import box_iou

__all__ = [
    "among_candidates",
    "compare",
    "compare_ranked",
    "is_ranked",
    "largest",
    "with_own_peaks",
]


def compare(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], clipped: bool = True
) -> tuple[float, float, int]:
    """Compares detections of level "full".

    Detections of one image and class are one if their IoU is at least 0.9; NMS leaves no two such.
    Boxes that are not clipped may be empty and have no IoU. They are one within 5 px.

    Returns:
        The largest difference of scores and of sides and standard deviations (pixels) of those that
        both have, and the number of those that only one has: all, if theirs are in another order
        than image after image, each best first.
    """
    score, box = 0.0, 0.0
    differ = 0 if _in_order(theirs) else len(theirs["scores"])
    keys = {(i, c) for x in (ours, theirs) for i, c in _groups(x)}
    for key in keys:
        a, b = (_of_group(x, key) for x in (ours, theirs))
        near = box_iou if clipped else _nearness
        pairs = _pairs(near(a["boxes"], b["boxes"]))
        differ += len(a["boxes"]) + len(b["boxes"]) - 2 * len(pairs)
        i, j = [i for i, _ in pairs], [j for _, j in pairs]
        score = max(score, largest(a["scores"][i] - b["scores"][j]))
        for name in ("boxes", "stds"):
            if name in a:
                box = max(box, largest(a[name][i] - b[name][j]))
    return score, box, differ


def _nearness(boxes: Tensor, others: Tensor) -> Tensor:
    """(A, 4), (B, 4) -> (A, B): 1 of equal boxes, 0.9 if the farthest sides are 5 px apart."""
    return 1 - torch.cdist(boxes, others, p=math.inf) / 50


def _pairs(ious: Tensor) -> list[tuple[int, int]]:
    """Row and column of the best of an IoU matrix, then of the best of the others, and so on."""
    ious, pairs = ious.clone(), []
    while ious.numel() and ious.max() >= 0.9:
        row, column = divmod(int(ious.argmax()), ious.shape[1])
        pairs.append((row, column))
        ious[row], ious[:, column] = -1, -1
    return pairs


def _in_order(found: dict[str, Tensor]) -> bool:
    images, scores = found["image_idxs"], found["scores"]
    new = images.diff()
    return bool(((new > 0) | ((new == 0) & (scores.diff() <= 0))).all())


def largest(differences: Tensor) -> float:
    """The largest absolute value, 0.0 of none; inf if one is no number. (``max`` of Python passes
    over a nan.)"""
    if not differences.numel():
        return 0.0
    return float(differences.abs().nan_to_num(nan=math.inf, posinf=math.inf).max())


def among_candidates(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], limit: float, lowers: bool
) -> tuple[float, float]:
    """How far detections are from the nearest candidates that have such a score.

    Args:
        ours: detections, as of level "full".
        theirs: candidates, of level "decoded".
        limit: a candidate with a score that differs by more is another one.
        lowers: the suppression lowers scores, so that a candidate's may be higher.

    Returns:
        The largest difference of scores, and of sides and standard deviations (pixels); inf if
        there is no candidate.
    """
    score, box = 0.0, 0.0
    for i, key, value, sides, *stds in zip(
        *(
            ours[name]
            for name in ("image_idxs", "classes", "scores", "boxes", "stds")
            if name in ours
        )
    ):
        more = theirs["scores"][i, :, key] - value
        fits = (more >= -limit) & (lowers | (more <= limit))
        far = (theirs["boxes"][i] - sides).abs().amax(dim=-1)
        far = torch.where(fits, far, math.inf)
        nearest = far.argmin()
        box = max(box, largest(far[nearest]))
        if stds:
            box = max(box, largest(theirs["stds"][i, nearest] - stds[0]))
        if not lowers and fits[nearest]:
            score = max(score, largest(more[nearest]))
    return score, box


def with_own_peaks(ours: Tensor, theirs: Tensor, share: float) -> Tensor:
    """Their scores, with ours where only one of the two has a peak, if these are at most that share
    of the peaks. (A score is 0 off the peaks. On flat parts of a heat map the last bit decides
    where they are.)"""
    if ours.shape != theirs.shape:
        return theirs
    other = (ours > 0) != (theirs > 0)
    few = other.sum() <= share * (ours > 0).sum()
    return torch.where(other, ours, theirs) if few else theirs


def is_ranked(candidates: dict[str, Tensor]) -> bool:
    """Whether the candidates of level "decoded" come in the order of their scores, as pairs of
    corners do. Rounding then decides which of two comes first."""
    best = candidates["scores"].amax(dim=-1)
    return best.shape[1] > 1 and bool((best.diff(dim=1) <= 0).all())


def compare_ranked(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], limit: float
) -> tuple[float, float]:
    """The largest difference of scores and of sides of ranked candidates that both have; inf if one
    has none of the other's. Those that score about as the last are left out, where rounding decides
    what is there; ``limit`` is how far scores may differ."""
    if ours["scores"].shape != theirs["scores"].shape:
        return math.inf, math.inf
    found = [
        among_candidates(_best_of_ranked(a, limit), b, limit, False)
        for a, b in ((ours, theirs), (theirs, ours))
    ]
    return max(x for x, _ in found), max(x for _, x in found)


def _best_of_ranked(candidates: dict[str, Tensor], limit: float) -> dict[str, Tensor]:
    scores, classes = candidates["scores"].max(dim=-1)  # (N, R)
    chosen = scores > scores[:, -1:] + 2 * limit
    return {
        "boxes": candidates["boxes"][chosen],
        "scores": scores[chosen],
        "classes": classes[chosen],
        "image_idxs": chosen.nonzero()[:, 0],
    }


def _groups(found: dict[str, Tensor]) -> Iterator[tuple[int, int]]:
    yield from zip(found["image_idxs"].tolist(), found["classes"].tolist())


def _of_group(found: dict[str, Tensor], key: tuple[int, int]) -> dict[str, Tensor]:
    rows = (found["image_idxs"] == key[0]) & (found["classes"] == key[1])
    return {name: x[rows] for name, x in found.items()}
