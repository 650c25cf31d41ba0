"""The score that a loss of the scores asks for, beside the mean label.

    python docs/examples/score_bias.py

A location has an object of quality q with a probability, else none. A perfect training moves its
score to where the mean derivative is 0. That is the minimum of the loss; where a source detaches a
weight or label, it is where the gradient that is used vanishes.
"""

import torch
from torch import Tensor

from gfocal.modeling.score_losses import sparse_score_loss
from gfocal.modeling.score_maps import SCORE_MAPS, QualityFocal, ScoreMaps

CASES = [(0.9, 0.1), (0.8, 0.3), (0.9, 0.5), (0.9, 0.8), (0.9, 0.95)]  # q, how often
LOSSES = {"qfl, beta 0": QualityFocal(0), "qfl, beta 1": QualityFocal(1)}
LOSSES |= {name: maps() for name, maps in SCORE_MAPS.items()}


def derivatives(maps: ScoreMaps, scores: Tensor, quality: float | None) -> Tensor:
    """Of the loss of each score (S,), as a positive or, without a quality, as a negative."""
    logits = scores.logit()[:, None].requires_grad_()
    rows = torch.arange(0 if quality is None else len(scores))
    positives, valid = (rows, torch.zeros_like(rows)), torch.ones(len(scores), dtype=torch.bool)
    qualities = torch.full(rows.shape, quality or 0.0, dtype=scores.dtype)
    loss = sparse_score_loss(logits, None, positives, qualities, valid, maps)
    return torch.autograd.grad(loss, logits)[0][:, 0]


def trained_scores(
    maps: ScoreMaps, quality: float, share: float, steps: int = 20_000
) -> list[float]:
    """Where the mean derivative rises through 0: floats."""
    scores = torch.arange(1, steps, dtype=torch.float64) / steps
    mean = share * derivatives(maps, scores, quality)
    mean += (1 - share) * derivatives(maps, scores, None)
    rises = (mean[:-1] < 0) & (mean[1:] >= 0)
    return scores[1:][rises].tolist()


def main() -> None:
    print("| object of quality | mean label |", " | ".join(LOSSES), "|")
    print("|---" * (2 + len(LOSSES)) + "|")
    for quality, share in CASES:
        found = (trained_scores(maps, quality, share) for maps in LOSSES.values())
        cells = [" or ".join(f"{x:.3f}" for x in scores) for scores in found]
        name = f"{quality}, {100 * share:.0f} % of the time"
        print("|", " | ".join([name, f"{quality * share:.3f}", *cells]), "|")


if __name__ == "__main__":
    main()
