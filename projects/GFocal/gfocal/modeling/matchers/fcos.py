"""FCOS: a location inside a box, near its centre, on the level of its size."""

import torch

from ..boxes import boxes_to_distances
from ..structures import IGNORED, DenseAnchors, DensePredictions, GroundTruth, Matches
from .common import nothing_matched

__all__ = ["FCOSMatcher"]


class FCOSMatcher:
    """FCOS's matching (https://arxiv.org/abs/1904.01355, Sec. 3.2, with centre sampling).

    A location is positive for a box under three conditions. It lies inside the box. It is no
    further than ``center_sampling_radius`` strides (in x and in y) from the box's centre. Its
    largest distance to a side fits its level: (4, 8] strides, without the lower bound on the finest
    level and without the upper one on the coarsest. Among several such boxes the smallest wins,
    among equal ones the first.

    Args:
        center_sampling_radius: in strides; 0 samples the whole box.

    Raises:
        ValueError: if the radius is negative.
    """

    def __init__(self, center_sampling_radius: float = 1.5):
        if center_sampling_radius < 0:
            raise ValueError(
                f"center_sampling_radius is {center_sampling_radius}; expected at least 0 strides"
            )
        self.center_sampling_radius = center_sampling_radius

    def __repr__(self) -> str:
        return f"{type(self).__name__}(center_sampling_radius={self.center_sampling_radius})"

    @torch.no_grad()
    def __call__(
        self,
        anchors: DenseAnchors,
        truth: GroundTruth,
        predictions: DensePredictions | None = None,
    ) -> Matches:
        """See :meth:`ATSSMatcher.__call__`. Of the anchors only centres and strides are read."""
        matched = nothing_matched(anchors, truth)
        lower, upper = 4 * anchors.strides, 8 * anchors.strides
        sizes = [size for size in anchors.level_sizes if size]  # a level may be empty
        lower[: sizes[0]] = 0
        upper[len(upper) - sizes[-1] :] = float("inf")
        radius = self.center_sampling_radius * anchors.strides
        for image, boxes in enumerate(truth.boxes):
            if len(boxes) == 0:
                continue
            boxes = boxes.tensor.to(anchors.centers.dtype)[:, None]  # (G, 1, 4)
            distances = boxes_to_distances(anchors.centers, boxes)  # (G, R, 4)
            furthest = distances.amax(dim=-1)
            fits = (distances.amin(dim=-1) > 0) & (furthest > lower) & (furthest <= upper)
            if self.center_sampling_radius > 0:
                offsets = anchors.centers - (boxes[..., :2] + boxes[..., 2:]) / 2
                fits &= offsets.abs().amax(dim=-1) < radius
            areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)  # (G, 1)
            smallest, idxs = areas.where(fits, float("inf")).min(dim=0)
            taken = smallest.isfinite() & (matched[image] != IGNORED)
            matched[image] = torch.where(taken, idxs, matched[image])
        return Matches(matched)
