"""How sure a detector is: scores that are probabilities, and intervals around a box's sides.

QFL with beta 2 is not a proper score: what minimises it is not the mean of the label. This room
undoes that (:func:`calibrated_score`), says how far a side is from where the box has it
(:func:`central_half_width`), and holds what a validation set told of a detector
(:class:`Calibration`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

__all__ = ["Calibration", "calibrated_score", "central_half_width"]

_LEAST = 1e-7  # of a score, and of what is left to 1


def calibrated_score(scores: Tensor, mean_iou: float, beta: float = 2.0) -> Tensor:
    """The expected label of a location, from the score that minimises QFL there.

    Let the label of alike locations be q with probability p, else 0. Training moves their score s
    to where the mean derivative of QFL (v1, Eq. 2) is 0: p L'(s, q) + (1 - p) L'(s, 0) = 0. With

        L'(s, 0) = -beta s^(beta-1) log(1-s) + s^beta / (1-s)
        L'(s, q) = -beta (q-s)^(beta-1) BCE(s, q) - (q-s)^(beta+1) / (s (1-s))

    that gives p, and the expected label q p. Nothing but q is fitted. For beta 0 the score is the
    expected label already; for beta 2 it is too high where objects are rare, and too low where they
    are sure: a score of 0.28 says 0.09, if q is 0.9. The map increases, so the order of detections
    stays.

    Args:
        scores: (...) in [0, 1], of a detector that QFL trained.
        mean_iou: q, the mean IoU of true positives with their objects.
        beta: of QFL; 0 or at least 1.

    Returns:
        (...) expected labels; scores of at least q as they are.

    Raises:
        ValueError: ``mean_iou`` is not in (0, 1).
    """
    if not 0 < mean_iou < 1:
        raise ValueError(
            f"mean_iou is {mean_iou!r}; expected the mean of IoUs, above 0 and below 1"
        )
    if beta == 0:
        return scores
    q, s = mean_iou, scores.double().clamp(_LEAST, 1 - _LEAST)
    gap = (q - s).clamp(min=0)
    bce = -(q * s.log() + (1 - q) * (-s).log1p())
    negative = -beta * s ** (beta - 1) * (-s).log1p() + s**beta / (1 - s)
    positive = -beta * gap ** (beta - 1) * bce - gap ** (beta + 1) / (s * (1 - s))
    expected = q * negative / (negative - positive)
    return torch.where(scores < q, expected, scores.double()).to(scores.dtype)


def central_half_width(stds: Any, level: float) -> Any:
    """Half the width of the interval around a side that holds the true one with a probability.

    The error counts as a Laplace distribution, whose tails are as heavy as those of measured
    errors: -log(1 - level) / sqrt(2) standard deviations, 0.49, 1.14 and 1.63 for 50, 80 and 90 %.

    Args:
        stds: a tensor or array (...) of calibrated standard deviations, any unit.
        level: the probability, in (0, 1).

    Returns:
        (...) in that unit.

    Raises:
        ValueError: another ``level``.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; expected a probability, above 0 and below 1")
    return stds * (-math.log1p(-level) / math.sqrt(2))


@dataclass(frozen=True)
class Calibration:
    """What a validation set told of a detector, as data. It is saved with the weights.

    Attributes:
        std_scale: by which standard deviations are multiplied.
        scores, values: points of the map of scores: from 0 to 1, increasing; linear between them.
        method: how the map was found.
        fitted_on: what it was fitted on, and how good it is there; for people.
    """

    std_scale: float = 1.0
    scores: Sequence[float] = (0.0, 1.0)
    values: Sequence[float] = (0.0, 1.0)
    method: str = "none"
    fitted_on: Mapping[str, Any] | None = None

    def __post_init__(self):
        """
        Raises:
            ValueError: a value that is no calibration.
        """
        if not (_are_numbers([self.std_scale]) and self.std_scale > 0):
            raise ValueError(f"std_scale is {self.std_scale!r}; expected a number above 0")
        x, y = self.scores, self.values
        if not (_are_numbers(x) and _are_numbers(y) and len(x) == len(y) >= 2):
            raise ValueError(
                f"a calibration has {_said(x)} as scores and {_said(y)} as values; expected two "
                "lists of as many numbers, at least 2"
            )
        steps = zip(x, x[1:], y, y[1:])
        if not (x[0] == 0 and x[-1] == 1 and 0 <= y[0] and y[-1] <= 1) or not all(
            a < b and c < d for a, b, c, d in steps
        ):
            raise ValueError(
                "a calibration's scores must increase from 0 to 1, and its values within [0, 1]; "
                f"got {_said(x)} and {_said(y)}"
            )

    def score(self, scores: Tensor) -> Tensor:
        """(...) scores -> (...) calibrated scores. Its operations are those of exported graphs."""
        points = torch.tensor([[*self.scores], [*self.values]], dtype=torch.float64)
        slopes = points.diff(dim=1)
        x, y = points.to(scores).unbind()
        slope = (slopes[1] / slopes[0]).to(scores)
        piece = (scores.unsqueeze(-1) >= x[1:-1]).sum(dim=-1)  # 0..P-2
        return y[piece] + slope[piece] * (scores - x[piece])

    def plain(self) -> dict[str, Any]:
        """Dicts, lists, strings and numbers alone, for a file."""
        data = asdict(self)
        return {key: list(x) if isinstance(x, tuple) else x for key, x in data.items()}

    @classmethod
    def from_plain(cls, data: Any, path: str) -> "Calibration":
        """The inverse of :meth:`plain`.

        Args:
            data: what lies in a file.
            path: of the file, for errors.

        Raises:
            ValueError: it is no calibration.
        """
        names = {x.name for x in fields(cls)}
        if not isinstance(data, Mapping) or not data.keys() <= names:
            got = sorted(data) if isinstance(data, Mapping) else type(data).__name__
            raise ValueError(f"{path}: its calibration is {got}; expected some of {sorted(names)}")
        try:
            return cls(**data)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def _are_numbers(values: Any) -> bool:
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    return is_list and all(
        isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in values
    )


def _said(values: Any) -> str:
    text = str(values)
    return text if len(text) < 80 else f"{text[:76]} ..."
