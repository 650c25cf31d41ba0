"""FoveaBox: the cells in the middle of a box, on the levels of its size."""

import torch
from torch import Tensor

from ..structures import IGNORED, DenseAnchors, DensePredictions, GroundTruth, Matches
from .common import nothing_matched

__all__ = ["FoveaMatcher"]

# Sizes of the boxes of a level, in its strides: from and to. The finest level also takes smaller
# ones, the coarsest larger ones. With strides 8..128 these are the 1..64, 32..128, 64..256,
# 128..512 and 256..2048 px of the published models.
_SIZES = (2.0, 8.0)
_SMALLEST, _LARGEST = 1 / 8, 16.0


class FoveaMatcher:
    """FoveaBox's matching (https://arxiv.org/abs/1904.03797).

    A box belongs to the levels whose range holds its size, the square root of its area: 2 to 8
    strides, both included. So it may belong to two. On the finest level the range starts at 1/8
    stride, and on the coarsest it ends at 16 strides. A smaller or larger box has no positives.

    A location of such a level is positive if it lies in the fovea: the box, shrunk about its centre
    to ``sigma`` of its sides. First and last column (and row) of the fovea are clamped to the map,
    as in the published code: at a margin, a box without a location in its fovea may get one. Among
    several such boxes the smallest wins, among equal ones the last.

    Args:
        sigma: share of the sides of a box.

    Raises:
        ValueError: if it is not in (0, 1].
    """

    def __init__(self, sigma: float = 0.4):
        if not 0 < sigma <= 1:
            raise ValueError(f"sigma is {sigma!r}; expected a number in (0, 1]")
        self.sigma = sigma

    def __repr__(self) -> str:
        return f"{type(self).__name__}(sigma={self.sigma})"

    @torch.no_grad()
    def __call__(
        self,
        anchors: DenseAnchors,
        truth: GroundTruth,
        predictions: DensePredictions | None = None,
    ) -> Matches:
        """See :meth:`ATSSMatcher.__call__`. Of the anchors only centres and strides are read."""
        matched = nothing_matched(anchors, truth)
        for image, boxes in enumerate(truth.boxes):
            if len(boxes) == 0:
                continue
            sides = boxes.tensor.to(anchors.centers.dtype)
            sizes = (sides[:, 2:] - sides[:, :2]).prod(dim=1).sqrt()
            # The published code paints the large boxes first. So each location keeps the last.
            order = sizes.argsort(descending=True, stable=True)
            fits = self._foveas(anchors, sides[order], sizes[order])
            ranks = torch.arange(1, len(order) + 1, device=fits.device, dtype=torch.int32)
            last = (fits * ranks[:, None]).amax(dim=0)
            taken = (last > 0) & (matched[image] != IGNORED)
            matched[image] = torch.where(taken, order[last.clamp(min=1) - 1], matched[image])
        return Matches(matched)

    def _foveas(self, anchors: DenseAnchors, boxes: Tensor, sizes: Tensor) -> Tensor:
        """(G, R) whether a location is in the fovea of a box, on a level of its size.

        Args:
            anchors: of the batch.
            boxes: (G, 4) XYXY pixels.
            sizes: (G,) pixels.
        """
        levels = [shape for shape in anchors.level_shapes if shape[0] * shape[1]]
        masks, start = [], 0
        for i, (height, width) in enumerate(levels):  # a level may be empty
            stride, first = anchors.strides[start], anchors.centers[start]
            smallest = _SIZES[0] if i > 0 else _SMALLEST
            largest = _SIZES[1] if i < len(levels) - 1 else _LARGEST
            fits = (sizes >= smallest * stride) & (sizes <= largest * stride)
            cells, offset = boxes / stride, first / stride
            columns = self._middle(cells[:, 0], cells[:, 2], offset[0], width)
            rows = self._middle(cells[:, 1], cells[:, 3], offset[1], height)
            mask = fits[:, None, None] & rows[:, :, None] & columns[:, None, :]
            masks.append(mask.flatten(1))
            start += height * width
        return torch.cat(masks, dim=1)

    def _middle(self, low: Tensor, high: Tensor, offset: Tensor, count: int) -> Tensor:
        """(G, count) which columns, or rows, are in the middle of [low, high] (G,), in cells. The
        first one is at ``offset``."""
        half = 0.5 * (high - low)
        first = torch.ceil(low + (1 - self.sigma) * half - offset).clamp(0, count - 1)
        last = torch.floor(low + (1 + self.sigma) * half - offset).clamp(0, count - 1)
        cells = torch.arange(count, device=low.device)
        return (cells >= first[:, None]) & (cells <= last[:, None])
