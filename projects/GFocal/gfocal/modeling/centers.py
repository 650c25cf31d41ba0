"""What the centre of an object says: the head, how a box is read and trained, and the score.

N images, K classes, G objects of the batch, C channels of a reading. A map has H x W cells; boxes
and places are in cells (x, y), the top left cell reaches from (0, 0) to (1, 1).

A *box reading* has ``branches``, names and channels of the head's outputs that it reads, in this
order. A *heat loss* is called with :class:`HeatInputs`. Both are arguments of the detector.

References: CenterNet, objects as points (https://arxiv.org/abs/1904.07850), Sec. 3 and 4; the other
readings and losses are of Generalized Focal Loss (https://arxiv.org/abs/2006.04388), put to work
here. No paper has them on this detector.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .boxes import boxes_to_distances, distances_to_boxes
from .heatmaps import gaussian_focal_loss
from .losses import check_beta, distribution_focal_loss, quality_focal_loss
from .representations import BinnedRepresentation
from .settings import COUNT, NOT_NEGATIVE, PROBABILITY, check_settings

__all__ = [
    "BoxReading",
    "CenterDistributions",
    "CenterFocalLoss",
    "CenterNetHead",
    "CenterNetPredictions",
    "CenterQualityFocalLoss",
    "CenterSize",
    "HeatInputs",
]


class CenterNetPredictions(NamedTuple):
    """What the head says about every cell.

    Attributes:
        heat_logits: (N, K, H, W).
        channels: (N, C, H, W) of the box reading.
    """

    heat_logits: Tensor
    channels: Tensor

    def detach(self) -> "CenterNetPredictions":
        """The same numbers, without gradients."""
        return CenterNetPredictions(*(x.detach() for x in self))

    def first(self) -> "CenterNetPredictions":
        """Those of the first image."""
        return CenterNetPredictions(*(x[:1] for x in self))


class BoxReading(Protocol):
    """How channels at a cell become a box.

    Attributes:
        branches: {name: number of channels} of the head's outputs.
        representation: what the sides' distributions are read by, or None.
    """

    branches: Mapping[str, int]
    representation: BinnedRepresentation | None

    def decode(self, channels: Tensor, cells: Tensor) -> Tensor:
        """(..., C) channels at (..., 2) cells -> (..., 4) boxes XYXY, cells."""

    def losses(
        self, channels: Tensor, cells: Tensor, boxes: Tensor, num_objects: Tensor
    ) -> dict[str, Tensor]:
        """
        Args:
            channels, cells, boxes: (M, C), (M, 2), (M, 4) of objects with a cell of their own.
            num_objects: () what the sums are divided by.
        """

    def merged(self, channels: Tensor, mirrored: Tensor) -> Tensor:
        """(N, C, H, W) of the images and of their mirror images, both as seen in the image -> of
        both together."""

    def logits(self, channels: Tensor) -> Tensor:
        """(..., C) -> (..., 4, B) what the representation reads. Only where there is one."""


class CenterSize(nn.Module):
    """Width and height of the box, and where in its cell the centre lies: CenterNet's own reading.

    Both are trained by L1, in cells. Mirrored, the sizes are averaged, and the offset is that of
    the image.

    Args:
        size_weight, offset_weight: of loss_wh and loss_offset.

    Raises:
        ValueError: for a negative weight.
    """

    representation = None

    def __init__(self, *, size_weight: float = 0.1, offset_weight: float = 1.0):
        super().__init__()
        self.branches = {"wh": 2, "offset": 2}
        check_settings(NOT_NEGATIVE, size_weight=size_weight, offset_weight=offset_weight)
        self.size_weight, self.offset_weight = size_weight, offset_weight

    def decode(self, channels: Tensor, cells: Tensor) -> Tensor:
        centers, half = cells + channels[..., 2:], channels[..., :2] / 2
        return torch.cat([centers - half, centers + half], dim=-1)

    def losses(
        self, channels: Tensor, cells: Tensor, boxes: Tensor, num_objects: Tensor
    ) -> dict[str, Tensor]:
        left_top, right_bottom = boxes.split(2, dim=-1)
        sizes, offsets = right_bottom - left_top, (left_top + right_bottom) / 2 - cells
        # The mean over both numbers of each object.
        loss_wh = (channels[:, :2] - sizes).abs().sum() / (2 * num_objects)
        loss_offset = (channels[:, 2:] - offsets).abs().sum() / (2 * num_objects)
        return {
            "loss_wh": self.size_weight * loss_wh,
            "loss_offset": self.offset_weight * loss_offset,
        }

    def merged(self, channels: Tensor, mirrored: Tensor) -> Tensor:
        sizes = (channels[:, :2] + mirrored[:, :2]) / 2
        return torch.cat([sizes, channels[:, 2:]], dim=1)


class CenterDistributions(nn.Module):
    """The distances of the four sides from the middle of the cell, as distributions over bins: the
    General distribution of GFL (Sec. 3). It needs no offset.

    The expected distances are trained by L1, in cells, with the weight of CenterNet's sizes; the
    distributions by DFL, averaged over the sides. Mirrored, logits are averaged.

    Args:
        representation: reads the channels of a side, in cells;
            :meth:`gfocal.modeling.representations.GeneralDistribution.geometric` reaches all sizes.
        size_weight: of loss_sides.
        dfl_weight: of loss_dfl.

    Raises:
        TypeError: the representation has no bins.
        ValueError: for a negative weight.
    """

    def __init__(
        self,
        *,
        representation: BinnedRepresentation,
        size_weight: float = 0.1,
        dfl_weight: float = 0.25,
    ):
        super().__init__()
        if not hasattr(representation, "to_bins"):
            raise TypeError(
                f"CenterDistributions got a {type(representation).__name__}; expected a "
                "representation with bins, e.g. GeneralDistribution.geometric()"
            )
        check_settings(NOT_NEGATIVE, size_weight=size_weight, dfl_weight=dfl_weight)
        self.representation = representation
        self.branches = {"sides": 4 * representation.num_channels}
        self.size_weight, self.dfl_weight = size_weight, dfl_weight

    def logits(self, channels: Tensor) -> Tensor:
        """(..., 4 B) -> (..., 4, B) logits of the bins of each side."""
        return channels.unflatten(-1, (4, self.representation.num_channels))

    def decode(self, channels: Tensor, cells: Tensor) -> Tensor:
        return distances_to_boxes(cells + 0.5, self.representation(self.logits(channels)))

    def losses(
        self, channels: Tensor, cells: Tensor, boxes: Tensor, num_objects: Tensor
    ) -> dict[str, Tensor]:
        logits, targets = self.logits(channels), boxes_to_distances(cells + 0.5, boxes)
        # Four sides are wrong by half as much as two sizes.
        loss_sides = (self.representation(logits) - targets).abs().sum() / (2 * num_objects)
        last = self.representation.num_channels - 1
        bins = self.representation.to_bins(targets).clamp(0, last - 0.1)  # as in GFL's loss term
        loss_dfl = distribution_focal_loss(logits.flatten(0, 1), bins.flatten(), reduction="sum")
        return {
            "loss_sides": self.size_weight * loss_sides,
            "loss_dfl": self.dfl_weight * loss_dfl / (4 * num_objects),
        }

    def merged(self, channels: Tensor, mirrored: Tensor) -> Tensor:
        sides = mirrored.unflatten(1, (4, self.representation.num_channels))
        return (channels + sides[:, [2, 1, 0, 3]].flatten(1, 2)) / 2  # left <-> right


class CenterNetHead(nn.Module):
    """A branch for the heat maps and one for each output that the box reading names: a 3x3
    convolution, ReLU, and a 1x1 convolution.

    Args:
        in_channels: of the map.
        num_classes: K.
        box: the box reading; only its ``branches`` are looked at.
        conv_dim: channels between the two convolutions.
        prior_prob: score of every cell at first.

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        box: BoxReading,
        conv_dim: int = 64,
        prior_prob: float = 0.1,
    ):
        super().__init__()
        check_settings(COUNT, in_channels=in_channels, num_classes=num_classes, conv_dim=conv_dim)
        check_settings(PROBABILITY, prior_prob=prior_prob)
        self.in_channels, self.num_classes = in_channels, num_classes
        self.num_channels = dict(box.branches)
        self.branches = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Conv2d(in_channels, conv_dim, 3, padding=1),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(conv_dim, channels, 1),
                )
                for name, channels in {"heatmap": num_classes, **box.branches}.items()
            }
        )
        for name, branch in self.branches.items():
            last = branch[-1]  # type: ignore[index]  # a Sequential
            if name == "heatmap":
                nn.init.constant_(last.bias, math.log(prior_prob / (1 - prior_prob)))
                continue
            for layer in branch.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.normal_(layer.weight, std=0.001)
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """(N, in_channels, H, W) -> {"heatmap": logits (N, K, H, W), and the reading's outputs}."""
        return {name: branch(features) for name, branch in self.branches.items()}


class HeatInputs(NamedTuple):
    """The input of a heat loss.

    Attributes:
        logits: (N, K, H, W).
        heatmaps: (N, K, H, W) of :func:`gfocal.modeling.heatmaps.paint_gaussians`.
        places: image, class, row and column (M,) of the objects, each place once.
        ious: (M,) IoU of the predicted and the true box of each, detached.
        valid: (N, 1, H, W) bool, where there may be background; None: everywhere.
    """

    logits: Tensor
    heatmaps: Tensor
    places: tuple[Tensor, Tensor, Tensor, Tensor]
    ious: Tensor
    valid: Tensor | None = None


class CenterFocalLoss(nn.Module):
    """The focal loss of heat maps, see :func:`gfocal.modeling.heatmaps.gaussian_focal_loss`.

    Args:
        alpha, beta: its exponents.

    Raises:
        ValueError: for a negative exponent.
    """

    def __init__(self, *, alpha: float = 2.0, beta: float = 4.0):
        super().__init__()
        check_settings(NOT_NEGATIVE, alpha=alpha, beta=beta)
        self.alpha, self.beta = alpha, beta

    def forward(self, inputs: HeatInputs) -> Tensor:
        """-> (), the sum."""
        loss = gaussian_focal_loss(inputs.logits, inputs.heatmaps, self.alpha, self.beta)
        return _valid(loss, inputs).sum()


class CenterQualityFocalLoss(nn.Module):
    """QFL on a heat map: the score of a centre is trained to be the IoU of its box.

    At the objects' cells it is QFL (GFL, Eq. 2) with that IoU as label, elsewhere the focal loss of
    heat maps. No paper has it.

    Args:
        qfl_beta: QFL's exponent; 0 or at least 1.
        alpha, beta: of the focal loss of heat maps.

    Raises:
        ValueError: ``qfl_beta`` is another number, or an exponent is negative.
    """

    def __init__(self, *, qfl_beta: float = 2.0, alpha: float = 2.0, beta: float = 4.0):
        super().__init__()
        check_beta(qfl_beta)
        check_settings(NOT_NEGATIVE, alpha=alpha, beta=beta)
        self.qfl_beta, self.alpha, self.beta = qfl_beta, alpha, beta

    def forward(self, inputs: HeatInputs) -> Tensor:
        """-> (), the sum."""
        logits, heatmaps = inputs.logits, inputs.heatmaps
        elsewhere = gaussian_focal_loss(logits, heatmaps, self.alpha, self.beta)
        elsewhere = _valid(elsewhere, inputs).masked_fill(heatmaps == 1, 0.0)
        at_centers = logits[inputs.places]
        labels = inputs.ious.to(at_centers.dtype)
        return elsewhere.sum() + quality_focal_loss(at_centers, labels, self.qfl_beta, "sum")


def _valid(loss: Tensor, inputs: HeatInputs) -> Tensor:
    return loss if inputs.valid is None else loss * inputs.valid
