"""The boxes of a batch as one list: which of them gets a location, what is predicted for them.

G boxes of N images, R locations, T candidates of a box. Boxes are XYXY pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..boxes import aligned_iou
from ..numerics import at_least_float32, joint_logits, to_device
from ..structures import DenseAnchors, DensePredictions, GroundTruth

__all__ = ["Objects", "claim", "predicted_scores_and_ious"]


class Objects(NamedTuple):
    """The G boxes of a batch.

    Attributes:
        boxes: (G, 4) float64.
        images: (G,) index of the image.
        idxs: (G,) index among the boxes of that image.
    """

    boxes: Tensor
    images: Tensor
    idxs: Tensor

    @classmethod
    def of(cls, truth: GroundTruth) -> "Objects":
        """Those of a batch with at least one."""
        boxes = torch.cat([b.tensor for b in truth.boxes]).double()
        index = torch.arange(len(boxes), device=boxes.device)
        ends = to_device(truth.counts, index).cumsum(0)
        images = torch.bucketize(index, ends, right=True)
        firsts = torch.nn.functional.pad(ends, (1, 0))[:-1]
        return cls(boxes, images, index - firsts[images])

    @property
    def firsts(self) -> Tensor:
        """(G,) index of the first box of a box's image."""
        return torch.arange(len(self.idxs), device=self.idxs.device) - self.idxs


def claim(matched: Tensor, slots: Tensor, claims: Tensor, objects: Objects) -> Tensor:
    """``matched`` (N, R), where each location goes to the box with the highest claim on it, or to
    the first of equal ones.

    Args:
        matched: a start, see :func:`gfocal.modeling.matchers.nothing_matched`.
        slots: (G, T) places in the flattened ``matched``; N * R for no claim.
        claims: (G, T) not negative.
        objects: the G boxes.
    """
    best = claims.new_full((matched.numel() + 1,), -1.0)
    best.scatter_reduce_(0, slots.flatten(), claims.flatten(), "amax")
    never = len(objects.idxs)
    idxs = torch.where(claims == best[slots], objects.idxs[:, None], never)
    winners = torch.full_like(best, never, dtype=torch.int64)
    winners.scatter_reduce_(0, slots.flatten(), idxs.flatten(), "amin")
    winners = winners[:-1].view_as(matched)
    return torch.where(winners < never, winners, matched)


def predicted_scores_and_ious(
    anchors: DenseAnchors,
    predictions: DensePredictions,
    places: tuple[Tensor, Tensor],
    classes: Tensor,
    boxes: Tensor,
) -> tuple[Tensor, Tensor]:
    """What is predicted at P locations: (P,) the joint score of a class, and (P,) the IoU of the
    predicted box with another, in at least float32.

    A location may come often: its distribution is read once. (So it waits for a GPU once: for how
    many locations there are.) Predictions that are not finite count as 1, as perfect ones. So they
    become positive, and the losses are as little finite as with a matcher that reads none.

    Args:
        anchors, predictions: of the batch.
        places: image (P,) and location (P,).
        classes: (P,) in 0..K-1.
        boxes: (P, 4).
    """
    images, locations = places
    logits = at_least_float32(predictions.cls_logits[images, locations, classes])
    if predictions.quality_logits is not None:
        logits = joint_logits(logits, predictions.quality_logits[images, locations, 0])

    slots = images * len(anchors.boxes) + locations
    seen = slots.new_zeros(predictions.cls_logits.shape[:2], dtype=torch.bool)
    seen.view(-1)[slots] = True
    seen_images, seen_locations = seen.nonzero(as_tuple=True)
    box_logits = at_least_float32(predictions.box_logits[seen_images, seen_locations])
    distances = predictions.distances_of(box_logits)
    decoded = anchors.decode(distances, seen_locations)
    rows = seen.view(-1).cumsum(0)[slots] - 1
    ious = aligned_iou(decoded[rows], boxes.to(decoded.dtype))
    odd = ~decoded.isfinite().all(dim=1)
    return logits.sigmoid().nan_to_num(nan=1.0), torch.where(odd[rows], 1.0, ious)
