"""What a teacher says of a batch, and where its student listens: the regions of a distillation.

A region is called as ``region(inputs, teaching)`` and answers :class:`Region`, locations with
weights. Shapes are those of structures.py; V is the number of locations of a region, over the
batch.

Reference: Localization Distillation (https://arxiv.org/abs/2102.12252), Sec. 3.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .boxes import aligned_iou, center_distance
from .matchers import adaptive_thresholds
from .settings import COUNT, IOU, check_setting
from .structures import DenseAnchors, DensePredictions, GroundTruth, LossInputs

__all__ = [
    "DistillationRegion",
    "Region",
    "Teaching",
    "ValuableRegion",
    "fine_grained",
    "main_region",
    "valuable",
]

# Pairs of an anchor and a box that are compared at once. A comparison in float64 needs some 60 MB
# for these, however many boxes are on an image. (22300 anchors of 800 x 1333 px: 23 boxes.)
_PAIRS = 2**19


class Teaching(NamedTuple):
    """What a teacher says of a batch, and what its student saw of it.

    Attributes:
        predictions: the teacher's at every location, without gradients, in the precision of the
            losses.
        features: (N, F, H, W) of each level, the maps that the teacher's head saw.
        own_features: the same of the student, with gradients.
        truth: of the batch.
    """

    predictions: DensePredictions
    features: Sequence[Tensor]
    own_features: Sequence[Tensor]
    truth: GroundTruth


class Region(NamedTuple):
    """Locations with weights.

    Attributes:
        idxs: (image (V,), location (V,)).
        weights: (V,), detached.
        total: () mean over processes of the summed weights; None if nobody has summed them.
    """

    idxs: tuple
    weights: Tensor
    total: Tensor | None = None


class DistillationRegion(Protocol):
    """Where a loss of a distillation is taken."""

    def __call__(self, inputs: LossInputs, teaching: Teaching) -> Region: ...


def main_region(inputs: LossInputs, teaching: Teaching) -> Region:
    """The foreground, weighted like the losses of boxes: by default with the student's largest
    class score."""
    return Region(inputs.fg_idxs, inputs.box_weights, inputs.total_box_weight)


class ValuableRegion:
    """The valuable localization region, VLR (Alg. 1): where an anchor overlaps with a box too
    little to be positive, and enough to say where its sides are.

    An anchor belongs to it if its DIoU with a box is in [``lower`` * t, t), where t is ATSS's
    threshold of the box. All anchors of all levels may; a positive one may too, as its IoU can
    reach t where its DIoU does not. Ignored locations do not belong to it. The weight is a quarter
    of the IoU with the box, the largest one if there are several. (The published code divides by 16
    here, and in the main region by 4.)

    Args:
        topk: of ATSS, for t.
        lower: in [0, 1].
        published_overlap: the DIoU as the published code has it. There, the part of the
            intersection is divided by the anchor's area instead of the union's: anchors inside a
            large box drop out, and others across its border come in, with a small weight.

    Raises:
        ValueError: ``topk`` is no positive integer, or ``lower`` not in [0, 1].
    """

    def __init__(self, topk: int = 9, lower: float = 0.25, published_overlap: bool = False):
        check_setting("topk", topk, COUNT)
        check_setting("lower", lower, IOU)
        self.topk, self.lower, self.published_overlap = topk, lower, published_overlap

    def __repr__(self) -> str:
        more = ", published_overlap=True" if self.published_overlap else ""
        return f"{type(self).__name__}(topk={self.topk}, lower={self.lower}{more})"

    def __call__(self, inputs: LossInputs, teaching: Teaching) -> Region:
        ious = valuable(
            inputs.anchors, teaching.truth, self.topk, self.lower, self.published_overlap
        )
        ious = (ious * (inputs.targets.labels >= 0)).to(inputs.box_weights.dtype)
        idxs = ious.nonzero(as_tuple=True)
        return Region(idxs, ious[idxs] / 4)


@torch.no_grad()
def valuable(
    anchors: DenseAnchors,
    truth: GroundTruth,
    topk: int = 9,
    lower: float = 0.25,
    published_overlap: bool = False,
) -> Tensor:
    """The weights of :class:`ValuableRegion` times 4.

    Returns:
        (N, R) float64: IoU with the box of whose region an anchor is, 0 outside.
    """
    all_thresholds = adaptive_thresholds(anchors, truth, topk).split(truth.counts)
    ret = anchors.boxes.new_zeros(len(truth.boxes), len(anchors.boxes), dtype=torch.float64)
    for image, (boxes, thresholds) in enumerate(zip(truth.boxes, all_thresholds)):
        of_box = iter(thresholds.split(_boxes_at_once(anchors)))
        for pairs, some in _pairs(anchors, boxes.tensor):
            ious = aligned_iou(pairs, some)
            overlap = ious
            if published_overlap:  # intersection = IoU * (areas) / (1 + IoU)
                area, other = ((x[..., 2:] - x[..., :2]).prod(dim=-1) for x in (pairs, some))
                overlap = ious * (area + other) / (1 + ious) / area
            diou = overlap - center_distance(pairs, some)
            t = next(of_box)
            inside = (diou < t) & (diou >= lower * t)
            ret[image] = torch.maximum(ret[image], (ious * inside).amax(dim=1))
    return ret


@torch.no_grad()
def fine_grained(anchors: DenseAnchors, truth: GroundTruth, valid: Tensor) -> Tensor:
    """The region of fine-grained feature imitation (https://arxiv.org/abs/1906.03609, Sec. 3.1):
    anchors that overlap with a box more than half as much as the best anchor of that box.

    Args:
        anchors, truth: of the batch.
        valid: (N, R) bool, the locations that can belong to it.

    Returns:
        (N, R) bool.
    """
    ret = torch.zeros_like(valid)
    for image, boxes in enumerate(truth.boxes):
        for pairs, some in _pairs(anchors, boxes.tensor):
            ious = aligned_iou(pairs, some) * valid[image, :, None]
            ret[image] |= (ious > 0.5 * ious.amax(dim=0)).any(dim=1)
    return ret


def _boxes_at_once(anchors: DenseAnchors) -> int:
    return max(1, _PAIRS // len(anchors.boxes))


def _pairs(anchors: DenseAnchors, boxes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(R, 1, 4) anchors and (1, g, 4) boxes in float64, so many boxes at a time that a comparison
    stays small."""
    for some in boxes.double().split(_boxes_at_once(anchors)):
        if len(some) > 0:
            yield anchors.boxes.double()[:, None], some[None]
