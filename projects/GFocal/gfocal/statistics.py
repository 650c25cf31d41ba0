"""Numbers that tell whether the targets are what one believes, for the event storage."""

import logging
from collections.abc import Sequence

import torch
from detectron2.utils.events import get_event_storage
from torch import nn

from .box_distribution import aligned_iou, boxes_to_distances, distances_to_boxes
from .process.sums import sum_over_workers
from .structures import DenseAnchors, DensePredictions, DenseTargets, to_device

__all__ = ["TargetStatistics"]


class TargetStatistics:
    """Looks at the targets of a batch, over all processes, now and then (a look waits for the GPU
    twice).

    Each look puts into the event storage, and so into metrics.json and TensorBoard:

    - ``positives_per_image``: foreground locations of an image, on average.
    - ``boxes_without_positive``: the share of the true boxes that no location learns. Small boxes
      can have none (https://github.com/sfzhang15/ATSS/issues/90), see
      ``ATSSMatcher(match_every_box=True)``.
    - ``mean_iou_of_positives``: of predicted and true box; QFL's labels.
    - ``clipped_dfl_targets/LEVEL``: the share of the sides whose true distance the bins of that
      level cannot express, i.e. below 0 or beyond ``reg_max`` bins; only with a representation that
      has bins. Above 1 % over at least 1000 sides, one warning is logged.

    Args:
        period: iterations between looks; 0 for none.
        level_names: of the levels, finest first.
    """

    MIN_SIDES, MAX_CLIPPED = 1000, 0.01

    def __init__(self, period: int, level_names: Sequence[str]):
        self.period = period
        self.level_names = list(level_names)
        self._clipped = self._sides = 0
        self._warned = False

    def is_due(self) -> bool:
        """Whether the batch of this iteration is to be looked at; never outside of a training."""
        try:
            return self.period > 0 and get_event_storage().iter % self.period == 0
        except AssertionError:  # there is no storage
            return False

    @torch.no_grad()
    def put(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        targets: DenseTargets,
        box_representation: nn.Module,
        num_boxes: Sequence[int],
    ) -> None:
        """
        Args:
            anchors, predictions, targets: of the batch, see structures.py.
            box_representation: how the channels are read.
            num_boxes: N numbers of true boxes.
        """
        matched = targets.matched_idxs
        images, locations = (matched >= 0).nonzero(as_tuple=True)
        centers, strides = anchors.centers[locations], anchors.strides[locations, None]
        true_boxes = targets.boxes[images, locations]
        distances = box_representation(predictions.box_logits[images, locations])
        boxes = distances_to_boxes(centers, distances * strides)

        counts = to_device(num_boxes, matched)
        learned = matched.new_zeros(sum(num_boxes))
        learned[matched[images, locations] + (counts.cumsum(0) - counts)[images]] = 1
        numbers = [learned.sum(), aligned_iou(boxes, true_boxes).sum()]
        has_bins = hasattr(box_representation, "reg_max")
        if has_bins:
            bins = boxes_to_distances(centers, true_boxes) / strides / box_representation.bin_width
            clipped = ((bins < 0) | (bins > box_representation.reg_max)).sum(dim=1)
            levels = torch.bucketize(
                locations, to_device(anchors.level_sizes, matched).cumsum(0), right=True
            )
            for values in (clipped, torch.full_like(clipped, 4)):
                per_level = values.new_zeros(len(anchors.level_sizes))
                numbers += per_level.index_add(0, levels, values)
        counted = to_device([len(num_boxes), sum(num_boxes), len(locations)], numbers[0])
        sums, _ = sum_over_workers(torch.stack([x.double() for x in [*counted, *numbers]]))
        images, boxes, positives, learned, ious, *sides = sums.tolist()

        storage = get_event_storage()
        storage.put_scalar("positives_per_image", positives / images)
        if boxes:
            storage.put_scalar("boxes_without_positive", 1 - learned / boxes)
        if positives:
            storage.put_scalar("mean_iou_of_positives", ious / positives)
        if has_bins:
            levels = len(self.level_names)
            for name, clipped, total in zip(self.level_names, sides[:levels], sides[levels:]):
                if total:
                    storage.put_scalar(f"clipped_dfl_targets/{name}", clipped / total)
            self._warn(sum(sides[:levels]), sum(sides[levels:]), box_representation)

    def _warn(self, clipped: float, sides: float, representation: nn.Module) -> None:
        self._clipped += clipped
        self._sides += sides
        share = self._clipped / max(self._sides, 1)
        if self._warned or self._sides < self.MIN_SIDES or share <= self.MAX_CLIPPED:
            return
        self._warned = True
        reach = representation.reg_max * representation.bin_width
        logging.getLogger(__name__).warning(
            f"{share:.1%} of the sides lie beyond what {representation.reg_max} bins can express: "
            f"boxes exceed reg_max = {representation.reg_max} ({reach:g} strides) from a location "
            "that learns them, and are learned smaller than they are. See clipped_dfl_targets for "
            "the levels; a larger reg_max or bin_width, or a coarser level, helps."
        )
