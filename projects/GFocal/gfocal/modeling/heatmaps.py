"""Heat maps of the detectors that find points: radii, painting, the loss, peaks.

N images, K classes, G objects of the whole batch. A heat map has H x W cells. Sizes, radii and
places are in cells; a place is (x, y) = (column, row).

An object is a Gaussian around its cell, with standard deviation (2 r + 1) / 6 and cut off at r
cells in each direction. Only the cell itself is 1.

References: CornerNet (https://arxiv.org/abs/1808.01244), Sec. 3.2; CenterNet, objects as points
(https://arxiv.org/abs/1904.07850), Sec. 3.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .losses import check_same_shape, reduced
from .numerics import at_least_float32

__all__ = [
    "centernet_radius",
    "corner_radius",
    "gaussian_focal_loss",
    "heatmap_peaks",
    "paint_gaussians",
]

# Cells that are computed at once. Their places and values then need 3 MB.
_PIECE = 2**18


def corner_radius(widths: Tensor, heights: Tensor, min_overlap: float = 0.3) -> Tensor:
    """How far the corners of a box may move: a box whose two corners lie within the radius has an
    IoU of at least ``min_overlap`` with the true one.

    CornerNet's code takes the smallest of three radii: both corners inside the box, both outside,
    one of each. With m the overlap, the first is always the smallest. It solves
    (w - 2r)(h - 2r) = m w h.

    Args:
        widths, heights: (G,) cells.
        min_overlap: m, in (0, 1].

    Returns:
        (G,) float64 cells, not rounded. Of whole sides the radius may be a whole number (5 x 4: 1),
        and callers round down. So the steps are those of the published code, to the last bit.
    """
    widths, heights = widths.double(), heights.double()
    s = widths + heights
    return (s - (s.square() - 4 * ((1 - min_overlap) * widths * heights)).sqrt()) / 4


def centernet_radius(widths: Tensor, heights: Tensor, min_overlap: float = 0.7) -> Tensor:
    """The radius of CenterNet's own code, which divides the three roots by 2 in place of 2a.

    The third is then always the smallest, 4m times what a box outside allows. (40 x 40 cells: 10.9;
    :func:`corner_radius` of the same overlap is 3.3.)

    Args:
        widths, heights: (G,) cells.
        min_overlap: m, in (0, 1].

    Returns:
        (G,) cells, not rounded.
    """
    s, wh = min_overlap * (widths + heights), widths * heights
    rest = 4 * min_overlap * (1 - min_overlap) * wh
    return rest / (s + (s.square() + rest).sqrt())  # root - s


@torch.no_grad()
def paint_gaussians(
    shape: Sequence[int],
    image_idxs: Tensor,
    classes: Tensor,
    cells: Tensor,
    radii: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The heat maps of objects; where several overlap, the largest value counts.

    Objects of similar radius are painted together, in windows of one size. The memory beyond the
    result does not grow with their number. (Their radii are read on the CPU, once a call.)

    Args:
        shape: (N, K, H, W).
        image_idxs: (G,) int64, 0..N-1.
        classes: (G,) int64, 0..K-1.
        cells: (G, 2) int64, x, y.
        radii: (G,) int64, cells.
        dtype: of the result.

    Returns:
        (N, K, H, W): 1 at the objects' cells, below 1 elsewhere, 0 away from them.

    Raises:
        ValueError: an object lies outside of the maps, or a radius is negative.
    """
    num_images, num_classes, height, width = (int(x) for x in shape)
    heatmaps = torch.zeros(num_images * num_classes * height * width, dtype=dtype).to(cells.device)
    rows = torch.cat([torch.stack([image_idxs, classes, radii], 1), cells], 1).cpu()  # (G, 5)
    sizes = torch.tensor([num_images, num_classes, 2**31, width, height])
    outside = ((rows < 0) | (rows >= sizes)).any(dim=1)
    if outside.any():
        image, label, radius, x, y = rows[outside][0].tolist()
        raise ValueError(
            f"an object of image {image} and class {label} at cell ({x}, {y}), radius {radius}; "
            f"expected one on maps of (N, K, H, W) {(num_images, num_classes, height, width)}, and "
            "a radius of at least 0"
        )
    order = rows[:, 2].argsort(descending=True, stable=True)
    planes = (image_idxs * num_classes + classes) * (height * width)
    order_there = order.to(cells.device)
    planes, cells, radii = planes[order_there], cells[order_there], radii[order_there]
    for piece, diameter in _pieces(rows[order, 2].tolist(), height, width):
        sigmas = (2 * radii[piece] + 1).to(dtype) / 6
        (xs, along_x), (ys, along_y) = (
            _window(cells[piece, axis], radii[piece], sigmas, min(diameter, size), size)
            for axis, size in enumerate((width, height))
        )
        places = planes[piece, None, None] + ys[:, :, None] * width + xs[:, None, :]
        values = along_y[:, :, None] * along_x[:, None, :]
        heatmaps.scatter_reduce_(0, places.flatten(), values.flatten(), "amax")
    return heatmaps.view(num_images, num_classes, height, width)


def _pieces(radii: list[int], height: int, width: int) -> Iterator[tuple[slice, int]]:
    """Runs of objects of similar radius, largest first: (which objects, diameter of their windows).

    The radii of a run differ by at most a fifth, and their windows have at most _PIECE cells
    together, if they are more than one.
    """
    start = 0
    while start < len(radii):
        diameter = 2 * radii[start] + 1
        limit = start + max(1, _PIECE // (min(diameter, height) * min(diameter, width)))
        end = start + 1
        while end < min(limit, len(radii)) and 5 * radii[end] >= 4 * radii[start]:
            end += 1
        yield slice(start, end), diameter
        start = end


def _window(
    centers: Tensor, radii: Tensor, sigmas: Tensor, length: int, size: int
) -> tuple[Tensor, Tensor]:
    """Along one axis of ``size`` cells: the ``length`` places (G', length) of each object's window,
    which lies on the map, and the Gaussian there, 0 beyond the radius."""
    firsts = (centers - length // 2).clamp(0, size - length)
    places = firsts[:, None] + torch.arange(length, device=centers.device)
    offsets = places - centers[:, None]
    values = (offsets.to(sigmas.dtype) / sigmas[:, None]).square().mul_(-0.5).exp_()
    return places, values.mul_(offsets.abs() <= radii[:, None])


def gaussian_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = 2.0,
    beta: float = 4.0,
    reduction: str = "none",
) -> Tensor:
    """The focal loss of a heat map (CornerNet, Eq. 1). With p = sigmoid(inputs):

        -(1 - p)^alpha log p                          where the target is 1
        -(1 - target)^beta p^alpha log(1 - p)         elsewhere

    Args:
        inputs: (...) logits.
        targets: (...) in [0, 1], of :func:`paint_gaussians`.
        alpha: how strongly easy cells are down-weighted.
        beta: how strongly the cells near an object are.
        reduction: "none", "mean" or "sum".

    Returns:
        (...) with "none", else a scalar; in at least float32.

    Raises:
        ValueError: if shapes differ or ``reduction`` is unknown.
    """
    check_same_shape(inputs, targets, "inputs", "targets")
    inputs = at_least_float32(inputs)
    is_object = targets == 1
    # Of an object's cell it is the loss of the opposite class with the opposite logit.
    logits = torch.where(is_object, -inputs, inputs)
    weights = torch.where(is_object, 1.0, (1 - targets.to(inputs.dtype)).pow(beta))
    # softplus(z) = -log(1 - sigmoid(z)), exact where the probability would round to 1.
    loss = weights * logits.sigmoid().pow(alpha) * F.softplus(logits, threshold=40)
    return reduced(loss, reduction)


def heatmap_peaks(scores: Tensor, kernel: int = 3) -> Tensor:
    """Scores with 0 wherever a neighbour is larger. All cells of a plateau are peaks.

    Args:
        scores: (N, K, H, W), not negative.
        kernel: width of the neighbourhood, cells; odd.

    Raises:
        ValueError: ``kernel`` is no odd number.
    """
    if kernel % 2 != 1:
        raise ValueError(f"kernel is {kernel}; expected an odd number of cells")
    largest = F.max_pool2d(scores, kernel, stride=1, padding=kernel // 2)
    return torch.where(scores == largest, scores, 0.0)
