"""Targets and losses of CornerNet (https://arxiv.org/abs/1808.01244, Sec. 3.2 and 3.3).

N images, K classes, G objects of the whole batch, C channels. Maps have H x W cells; corners.py
says how a corner lies in a cell.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..process.sums import sum_over_workers
from .cells import cell_anchors
from .corners import STRIDE, CornerPredictions
from .heatmaps import corner_radius, gaussian_focal_loss, paint_gaussians
from .matchers import ignore_background_inside
from .numerics import at_least_float32, to_device
from .settings import NOT_NEGATIVE, check_settings
from .structures import BACKGROUND, GroundTruth

__all__ = ["CornerCriterion", "CornerTargets", "Objects", "objects_of", "pull_and_push"]

# Images over which the published losses of the embeddings are summed: those of one GPU.
_PUBLISHED_IMAGES = 5


class CornerTargets(NamedTuple):
    """What the network should say of one corner.

    Attributes:
        heatmaps: (N, K, H, W), see :func:`gfocal.modeling.heatmaps.paint_gaussians`.
        cells: (G, 2) x, y of each object's corner.
        offsets: (G, 2) x, y in cells.
        has_offset: (G,) bool. Of objects whose corners share a cell only the last one teaches the
            offset, whatever their classes.
    """

    heatmaps: Tensor
    cells: Tensor
    offsets: Tensor
    has_offset: Tensor


class Objects(NamedTuple):
    """The objects of a batch that lie on the maps.

    Attributes:
        image_idxs: (G,) ascending.
        boxes: (G, 4) XYXY pixels.
        corners: targets of the top left and of the bottom right corner.
        max_count: an image has no more.
        crowds: (N, 1, H, W) bool: cells in a region without background; None for none.
    """

    image_idxs: Tensor
    boxes: Tensor
    corners: tuple[CornerTargets, CornerTargets]
    max_count: int
    crowds: Tensor | None = None

    def at_corners(self, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """(G, C) twice: values of (N, C, H, W) at the cells of the two corners, in at least
        float32."""
        first, second = (
            at_least_float32(x[self.image_idxs, :, corner.cells[:, 1], corner.cells[:, 0]])
            for x, corner in zip(maps, self.corners)
        )
        return first, second


@torch.no_grad()
def objects_of(truth: GroundTruth, like: Tensor) -> Objects:
    """The objects and their targets.

    The Gaussian's radius is :func:`gfocal.modeling.heatmaps.corner_radius` of the sides in cells,
    rounded up; it is then rounded down. A box is cut where the map ends. One beyond is left out.

    Args:
        truth: of the batch.
        like: heat maps (N, K, H, W) of the network.
    """
    height, width = like.shape[-2:]
    dtype = torch.promote_types(like.dtype, torch.float32)
    image_idxs = torch.arange(len(truth.boxes), device=like.device)
    image_idxs = image_idxs.repeat_interleave(
        to_device(truth.counts, image_idxs), output_size=sum(truth.counts)
    )
    pixels = torch.cat([x.tensor.to(dtype) for x in truth.boxes])
    size = to_device([width, height], pixels)
    boxes = pixels / STRIDE
    on_map = ((boxes[:, 2:] > 0) & (boxes[:, :2] < size)).all(dim=1).nonzero().squeeze(1)
    image_idxs, boxes = image_idxs[on_map], boxes[on_map]
    classes = torch.cat([*truth.classes])[on_map].long()
    sides = (boxes[:, 2:] - boxes[:, :2]).ceil().double()
    radii = corner_radius(sides[:, 0], sides[:, 1]).long()

    # Both corners at once: those of the bottom right are on the maps after the others.
    points = boxes.view(-1, 2, 2).transpose(0, 1).clamp(min=0).minimum(size)  # (2, G, 2)
    cells = points.minimum(size - 1).long()  # what ends with the map belongs to the last cell
    planes = image_idxs + len(like) * torch.arange(2, device=like.device)[:, None]  # (2, G)
    heatmaps = paint_gaussians(
        (2 * len(like), *like.shape[1:]),
        planes.flatten(),
        classes.repeat(2),
        cells.flatten(0, 1),
        radii.repeat(2),
        dtype,
    )
    places = (planes * height + cells[..., 1]) * width + cells[..., 0]
    order = torch.arange(len(boxes), device=like.device).expand(2, -1)
    owners = order.new_full((2 * len(like) * height * width,), -1)
    owners.scatter_reduce_(0, places.flatten(), order.flatten(), "amax")
    of_corners = zip(heatmaps.chunk(2), cells, points - cells, owners[places] == order)
    first, second = (CornerTargets(*x) for x in of_corners)
    max_count = max(truth.counts, default=0)
    return Objects(image_idxs, pixels[on_map], (first, second), max_count, _crowds(truth, like))


def _crowds(truth: GroundTruth, like: Tensor) -> Tensor | None:
    """Cells whose middle lies in one of the truth's ``ignore_regions``."""
    if not any(x is not None and len(x) for x in truth.ignore_regions):
        return None
    num_images, (height, width) = len(like), like.shape[-2:]
    anchors = cell_anchors((height, width), STRIDE, like.device)
    labels = torch.full((num_images, height * width), BACKGROUND, device=like.device)
    labels = ignore_background_inside(labels, anchors, truth.ignore_regions)
    return (labels != BACKGROUND).view(num_images, 1, height, width)


def pull_and_push(
    top_left: Tensor, bottom_right: Tensor, image_idxs: Tensor, num_images: int, max_count: int
) -> tuple[Tensor, Tensor]:
    """Losses of embeddings (Eq. 4 and 5). With e the two embeddings of an object, m their mean, and
    n objects in the image:

        pull = sum_i [(e_tl,i - m_i)^2 + (e_br,i - m_i)^2] / n
        push = sum_{i != j} max(0, 1 - |m_i - m_j|) / (n (n - 1))

    Args:
        top_left, bottom_right: (G,) embeddings at the corners.
        image_idxs: (G,) ascending.
        num_images: N.
        max_count: an image has no more objects.

    Returns:
        Two scalars, summed over the images.
    """
    means = (top_left + bottom_right) / 2
    pulls = (top_left - means).square() + (bottom_right - means).square()
    counts = image_idxs.new_zeros(num_images).index_add(0, image_idxs, torch.ones_like(image_idxs))
    pull = (pulls / counts[image_idxs]).sum()
    order = torch.arange(max_count, device=means.device)
    places = torch.arange(len(means), device=means.device) - (counts.cumsum(0) - counts)[image_idxs]
    rows = means.new_zeros(num_images, max_count).index_put((image_idxs, places), means)
    own = order < counts[:, None]
    pairs = own[:, :, None] & own[:, None, :] & (order[:, None] != order)
    pushes = (1 - (rows[:, :, None] - rows[:, None, :]).abs()).clamp(min=0)
    push = (pushes * pairs).sum(dim=(1, 2)) / (counts * (counts - 1)).clamp(min=1)
    return pull, push.sum()


class CornerCriterion(nn.Module):
    """The losses of a batch, summed over the stacks.

    ``loss_heatmap`` and ``loss_offset`` are averaged over the two corners. Their normalisers, the
    cells with such a corner, are means over the processes, and at least 1 in all of them together.

    ``loss_pull`` and ``loss_push`` are sums over the images of all processes. With more than 5
    images they are 5 times the mean, so that they weigh as published, whatever the number of
    processes.

    Args:
        offset_weight, pull_weight, push_weight: of these losses.

    Raises:
        ValueError: for a negative weight.
    """

    def __init__(
        self, *, offset_weight: float = 1.0, pull_weight: float = 0.1, push_weight: float = 0.1
    ):
        super().__init__()
        weights = {"offset": offset_weight, "pull": pull_weight, "push": push_weight}
        check_settings(NOT_NEGATIVE, **{f"{name}_weight": x for name, x in weights.items()})
        self.weights = {"heatmap": 1.0, **weights}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}_weight={x}" for name, x in self.weights.items())

    def forward(self, predictions: CornerPredictions, objects: Objects) -> dict[str, Tensor]:
        """
        Args:
            predictions: of the batch.
            objects: of the batch, see :func:`objects_of`.

        Returns:
            {name: scalar}
        """
        num_images = len(predictions.stacks[0][0].heat_logits)
        counts = [x for c in objects.corners for x in ((c.heatmaps == 1).sum(), c.has_offset.sum())]
        counts.append(to_device([num_images], counts[0])[0])
        sums, parts = sum_over_workers(torch.stack(counts).to(objects.boxes.dtype))
        shares = parts / sums.clamp(min=1)
        of_embeddings = parts * (_PUBLISHED_IMAGES / sums[4]).clamp(max=1)
        terms: dict[str, list[Tensor]] = {name: [] for name in self.weights}
        for stack in predictions.stacks:
            offsets = objects.at_corners((stack[0].offsets, stack[1].offsets))
            for i, (maps, corner) in enumerate(zip(stack, objects.corners)):
                found = gaussian_focal_loss(maps.heat_logits, corner.heatmaps)
                if objects.crowds is not None:
                    found = found * (~objects.crowds | (corner.heatmaps == 1))
                terms["heatmap"].append(found.sum() * shares[2 * i] / 2)
                found = F.smooth_l1_loss(offsets[i], corner.offsets, reduction="none").sum(dim=1)
                found = (found * corner.has_offset).sum()
                terms["offset"].append(found * shares[2 * i + 1] / 2)
            first, second = objects.at_corners((stack[0].embeddings, stack[1].embeddings))
            of_images = objects.image_idxs, num_images, objects.max_count
            pull, push = pull_and_push(first.squeeze(1), second.squeeze(1), *of_images)
            terms["pull"].append(pull * of_embeddings)
            terms["push"].append(push * of_embeddings)
        return {
            f"loss_{name}": torch.stack(values).sum() * self.weights[name]
            for name, values in terms.items()
        }
