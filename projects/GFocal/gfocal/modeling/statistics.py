"""Statistics of the targets for the event storage: are the targets as expected?"""

import logging
from collections.abc import Sequence
from typing import Any, cast

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..process.sums import sum_over_workers
from .boxes import aligned_iou
from .dense import DenseCore, DenseStep
from .numerics import to_device
from .observers import is_due
from .representations import BinnedRepresentation

__all__ = ["CenterStatistics", "TargetStatistics", "put_target_statistics"]


def put_target_statistics(counts: Tensor) -> list[float]:
    """Puts the statistics of :class:`TargetStatistics` that every detector has into the event
    storage.

    Args:
        counts: float64 sums over this process: images, boxes, positives, boxes with a positive, the
            positives' IoUs; others may follow.

    Returns:
        The others, summed over all processes.
    """
    sums, _ = sum_over_workers(counts)
    images, boxes, positives, matched, ious, *others = sums.tolist()
    storage = get_event_storage()
    storage.put_scalar("positives_per_image", positives / images)
    if boxes:
        storage.put_scalar("boxes_without_positive", 1 - matched / boxes)
    if positives:
        storage.put_scalar("mean_iou_of_positives", ious / positives)
    return others


class TargetStatistics:
    """Looks at the targets of a batch, over all processes, once in ``period`` iterations. (A look
    waits for the GPU twice.)

    Each look puts these into the event storage, and so into metrics.json and TensorBoard:

    - ``positives_per_image``: foreground locations of an image, on average.
    - ``boxes_without_positive``: the share of the true boxes without a positive location. Small
      boxes can have none (https://github.com/sfzhang15/ATSS/issues/90), see
      ``ATSSMatcher(match_every_box=True)``.
    - ``mean_iou_of_positives``: IoU of predicted and true box, QFL's labels.
    - ``clipped_dfl_targets/LEVEL``: the share of a level's sides with a true distance below 0 or
      beyond the last bin, which the bins cannot express. Only with a representation that has bins.
      Above 1 % over at least 1000 sides, one warning is logged.

    Args:
        period: iterations between looks; 0 for none.
        level_names: of the levels, finest first.
    """

    MIN_SIDES, MAX_CLIPPED = 1000, 0.01

    def __init__(self, period: int, level_names: Sequence[str]):
        self.period = period
        self.level_names = list(level_names)
        self._clipped = self._sides = 0.0
        self._warned = False

    @torch.no_grad()
    def __call__(self, core: DenseCore, step: DenseStep) -> None:
        if not is_due(self.period):
            return
        sides = put_target_statistics(torch.stack([x.double() for x in _counts(step)]))
        storage = get_event_storage()
        if sides:
            levels = len(self.level_names)
            for name, clipped, total in zip(self.level_names, sides[:levels], sides[levels:]):
                if total:
                    storage.put_scalar(f"clipped_dfl_targets/{name}", clipped / total)
            representation = cast("BinnedRepresentation", step.predictions.box_representation)
            self._warn(sum(sides[:levels]), sum(sides[levels:]), representation)

    def _warn(self, clipped: float, sides: float, representation: BinnedRepresentation) -> None:
        self._clipped += clipped
        self._sides += sides
        share = self._clipped / max(self._sides, 1)
        if self._warned or self._sides < self.MIN_SIDES or share <= self.MAX_CLIPPED:
            return
        self._warned = True
        last = representation.num_channels - 1
        low, high = (float(representation.bins[i]) for i in (0, -1))
        logging.getLogger(__name__).warning(
            f"{share:.1%} of the sides lie outside of the bins, which are from {low:g} to {high:g} "
            f"strides (reg_max = {last}), and are learned at their ends. See clipped_dfl_targets "
            "for the levels. Where boxes are too large, a larger reg_max or bin_width, bins of "
            "GeneralDistribution.geometric, or a coarser level, helps; where the matcher takes "
            "locations outside of their box, bins of GeneralDistribution.signed."
        )


def _counts(step: DenseStep) -> list[Tensor]:
    """Scalars of this process: images, boxes, positives, boxes with a positive, sum of the
    positives' IoUs. With bins also the clipped sides of each level, and then all sides of each."""
    anchors, predictions, truth, targets, _ = step
    matched = cast("Tensor", targets.matched_idxs)
    images, locations = (matched >= 0).nonzero(as_tuple=True)
    true_boxes = targets.boxes[images, locations]
    distances = predictions.distances_of(predictions.box_logits[images, locations])
    ious = aligned_iou(anchors.decode(distances, locations), true_boxes)

    num_boxes = truth.counts
    counts = to_device(num_boxes, matched)
    has_positive = matched.new_zeros(sum(num_boxes))
    has_positive[matched[images, locations] + (counts.cumsum(0) - counts)[images]] = 1
    numbers = [*to_device([len(num_boxes), sum(num_boxes), len(locations)], matched)]
    numbers += [has_positive.sum(), ious.sum()]
    representation = predictions.box_representation
    if hasattr(representation, "to_bins"):
        representation = cast("BinnedRepresentation", representation)
        bins = representation.to_bins(anchors.encode(true_boxes, locations))
        clipped = ((bins < 0) | (bins > representation.num_channels - 1)).sum(dim=1)
        ends = to_device(anchors.level_sizes, matched).cumsum(0)
        levels = torch.bucketize(locations, ends, right=True)
        for values in (clipped, torch.full_like(clipped, 4)):
            per_level = values.new_zeros(len(anchors.level_sizes))
            numbers += per_level.index_add(0, levels, values)
    return numbers


class CenterStatistics:
    """Looks at the centres of a batch, over all processes, once in ``period`` iterations. Each look
    puts what every detector has, see :func:`put_target_statistics`: an object with a cell of its
    own is a positive.

    Args:
        period: iterations between looks; 0 for none.
    """

    def __init__(self, period: int):
        self.period = period

    @torch.no_grad()
    def __call__(self, detector: Any, step: Any) -> None:
        """
        Args:
            detector: a :class:`gfocal.detectors.centernet.CenterNet`.
            step: a :class:`gfocal.modeling.observers.TrainingStep`.
        """
        if not is_due(self.period):
            return
        (predictions,) = step.outputs
        centers = detector.centers(step.truth, predictions)
        owns = centers.owns_cell
        ious = detector.picked(predictions.channels, centers)[1][owns].double()
        counts = to_device([len(step.truth.boxes), sum(step.truth.counts)], ious)
        put_target_statistics(torch.cat([counts, owns.sum().expand(2), ious.sum()[None]]))
