"""All candidates of a batch as tensors, for graphs: what exports are made of.

No number here depends on what is on the images. Under a trace, sizes are tensors.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Decoded", "per_level"]


class Decoded(NamedTuple):
    """All candidates of a batch, before threshold, top-k and NMS.

    Attributes:
        boxes: (N, R, 4) XYXY pixels of the network's input, not clipped.
        scores: (N, R, K); 0 where there is no candidate.
        level_sizes: number of locations of each level, R together. Each level has its own top-k.
        stds: standard deviations of the sides, pixels. Called without an argument (N, R, 4); called
            with images (T,) and locations (T,) those of T candidates (T, 4). None of a detector
            that has none.
    """

    boxes: Tensor
    scores: Tensor
    level_sizes: Sequence[Any]
    stds: Callable[..., Tensor] | None = None


def per_level(x: Tensor, sizes: Sequence[Any]) -> list[Tensor]:
    """(N, R, ...) -> (N, R_i, ...) of each level. (Under a trace the sizes are tensors, which
    ``split`` would freeze.)"""
    ret, start = [], 0
    for size in sizes:
        ret.append(x[:, start : start + size])
        start = start + size
    return ret
