"""SSD's prior boxes: several shapes at every location of every level.

N images, R priors over all levels: levels in order, then rows, columns, and the A shapes of a
location. Boxes are XYXY pixels of the network's input.

Source: SSD (https://arxiv.org/abs/1512.02325), Sec. 2.2, and the sizes that its authors' code has.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .numerics import to_device

__all__ = ["PERCENTS", "PriorBoxes", "PriorGenerator", "prior_sizes"]

# The percents of prior_sizes on COCO, by the side of the input.
PERCENTS = {300: (7, 15, 90), 512: (4, 10, 90)}


def prior_sizes(
    input_size: int, num_levels: int, percents: tuple[int, int, int]
) -> list[tuple[int, int]]:
    """(min, max) sizes of the priors of each level, in pixels, by the rule of SSD's authors.

    The first level begins at a small share of the input's side. From the second on, the sizes go up
    in equal steps; each level's max is the min of the next one.

    Args:
        input_size: side of the square input, pixels.
        num_levels: at least 3.
        percents: where the first and the second level begin, and where the last one may begin at
            most, in percent of the side. ``PERCENTS`` has those of SSD300 and SSD512 on COCO.

    Raises:
        ValueError: if the percents do not increase, or there are too many levels for them.
    """
    first, low, high = percents
    step = math.floor((high - low) / (num_levels - 2)) if num_levels > 2 else 0
    if not (0 < first < low < high and step >= 1):
        raise ValueError(
            f"percents are {tuple(percents)} with {num_levels} levels; expected three increasing "
            "numbers and 3 to (high - low + 2) levels"
        )
    shares = [first, *(low + step * level for level in range(num_levels))]
    sides = [int(input_size * share / 100) for share in shares]
    return list(pairwise(sides))


class PriorBoxes(NamedTuple):
    """The priors of a batch, the same for each image.

    Attributes:
        boxes: (R, 4).
        level_shapes: (H, W) of each level.
        num_shapes: A of each level; sum of H * W * A is R.
        strides: of each level, pixels.
    """

    boxes: Tensor
    level_shapes: list[tuple[int, int]]
    num_shapes: list[int]
    strides: list[int]

    @property
    def level_sizes(self) -> list[int]:
        """Number of priors of each level."""
        return [h * w * n for (h, w), n in zip(self.level_shapes, self.num_shapes)]

    @property
    def centers(self) -> Tensor:
        """(R, 2) centres, (x, y) pixels."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    def inside(self, image_sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Which priors lie on each image rather than on the padding of the batch: those of the
        cells whose top left corner does.

        Args:
            image_sizes: N pairs (height, width), pixels.

        Returns:
            (N, R) bool.
        """
        limits = to_device(list(image_sizes), self.boxes)
        levels = []
        for (rows, columns), num_shapes, stride in zip(
            self.level_shapes, self.num_shapes, self.strides
        ):
            y, x = (torch.arange(n, device=limits.device) * stride for n in (rows, columns))
            inside = (y[:, None] < limits[:, None, None, 0]) & (x < limits[:, None, None, 1])
            levels.append(inside.flatten(1).repeat_interleave(num_shapes, dim=1))
        return torch.cat(levels, dim=1)


class PriorGenerator(nn.Module):
    """Makes the priors of feature maps.

    A location of a level has, in this order: a square of side min; a square of side
    sqrt(min * max); and for each aspect ratio r a wide one (min * sqrt(r) x min / sqrt(r)) and a
    tall one. They are centred in the middle of the cell, at ((column + 0.5) * stride,
    (row + 0.5) * stride), and not clipped.

    Args:
        sizes: (min, max) of each level, pixels; see :func:`prior_sizes`.
        aspect_ratios: of each level, numbers above 1: [2] makes four shapes, [2, 3] six.
        strides: of each level, pixels.

    Attributes:
        num_anchors: shapes at a location, for each level.

    Raises:
        ValueError: if the three are not of as many levels, or a number is out of its range.
    """

    def __init__(
        self,
        *,
        sizes: Sequence[tuple[float, float]],
        aspect_ratios: Sequence[Sequence[float]],
        strides: Sequence[int],
    ):
        super().__init__()
        if not len(sizes) == len(aspect_ratios) == len(strides):
            raise ValueError(
                f"got sizes of {len(sizes)} levels, aspect_ratios of {len(aspect_ratios)} and "
                f"strides of {len(strides)}; expected as many of each"
            )
        self.strides = [int(stride) for stride in strides]
        self.num_anchors: list[int] = []
        for level, ((small, large), ratios) in enumerate(zip(sizes, aspect_ratios)):
            if not 0 < small <= large or any(ratio <= 0 for ratio in ratios):
                raise ValueError(
                    f"level {level} has sizes {(small, large)} and aspect ratios {list(ratios)}; "
                    "expected 0 < min <= max and ratios above 0"
                )
            middle = math.sqrt(small * large)
            shapes = [(small, small), (middle, middle)]
            for ratio in ratios:
                long, short = small * math.sqrt(ratio), small / math.sqrt(ratio)
                shapes += [(long, short), (short, long)]
            center = self.strides[level] / 2
            boxes = [
                [center - w / 2, center - h / 2, center + w / 2, center + h / 2] for w, h in shapes
            ]
            self.register_buffer(f"cell_{level}", torch.tensor(boxes), persistent=False)
            self.num_anchors.append(len(shapes))

    def forward(self, features: Sequence[Tensor]) -> PriorBoxes:
        """
        Args:
            features: a map (N, F, H, W) of each level.

        Raises:
            ValueError: if there are not as many maps as levels.
        """
        if len(features) != len(self.strides):
            raise ValueError(
                f"got {len(features)} feature maps; expected {len(self.strides)}, the levels of "
                "the anchor_generator"
            )
        shapes = [(x.shape[-2], x.shape[-1]) for x in features]
        levels = []
        for level, ((rows, columns), stride) in enumerate(zip(shapes, self.strides)):
            cell = self.get_buffer(f"cell_{level}")
            y, x = (torch.arange(n, device=cell.device) * stride for n in (rows, columns))
            y, x = torch.meshgrid(y, x, indexing="ij")
            shifts = torch.stack([x, y, x, y], dim=-1).to(cell.dtype)  # (H, W, 4)
            levels.append((shifts[:, :, None] + cell).flatten(0, 2))
        return PriorBoxes(torch.cat(levels), shapes, self.num_anchors, self.strides)
