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

# Pairs a piece, so that temporaries stay in the cache; of locations, with their bins, an eighth.
_PIECE = 2**15


class Objects(NamedTuple):
    """The G boxes of a batch.

    Attributes:
        boxes: (G, 4) float64.
        images: (G,) index of the image.
        idxs: (G,) index among the boxes of that image.
        classes: (G,) of the boxes, int64; empty if the matcher was given none.
    """

    boxes: Tensor
    images: Tensor
    idxs: Tensor
    classes: Tensor

    @classmethod
    def of(cls, truth: GroundTruth) -> "Objects":
        """Those of a batch with at least one."""
        boxes = torch.cat([b.tensor for b in truth.boxes]).double()
        index = torch.arange(len(boxes), device=boxes.device)
        ends = to_device(truth.counts, index).cumsum(0)
        images = torch.bucketize(index, ends, right=True)
        firsts = torch.nn.functional.pad(ends, (1, 0))[:-1]
        classes = torch.cat([*truth.classes]).long() if truth.classes else index[:0]
        return cls(boxes, images, index - firsts[images], classes)

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
    objects: Objects,
    owners: Tensor,
    locations: Tensor,
) -> tuple[Tensor, Tensor]:
    """What is predicted for P pairs of a box and a location of its image: (P,) the joint score of
    the box's class, and (P,) the IoU of the predicted box with it, in at least float32.

    A location may come often: its distribution is read once. (So it waits for a GPU once: for how
    many locations there are.) Predictions that are not finite count as 1, as perfect ones. So they
    become positive, and the losses are as little finite as with a matcher that reads none.

    Args:
        anchors, predictions, objects: of the batch.
        owners: (P,) boxes, in 0..G-1.
        locations: (P,) in 0..R-1.
    """
    num_classes = predictions.cls_logits.shape[-1]
    slots = objects.images.index_select(0, owners).mul_(len(anchors.boxes)).add_(locations)
    seen = slots.new_zeros(predictions.cls_logits.shape[:2], dtype=torch.bool)
    seen.view(-1).index_fill_(0, slots, True)
    rows = seen.view(-1).cumsum(0).sub_(1)
    decoded = _decode(anchors, predictions, seen)
    odd = ~decoded.isfinite().all(dim=1)
    boxes = objects.boxes.to(decoded.dtype)
    cls_logits = predictions.cls_logits.flatten()
    scores, ious = [], []
    for owner, slot in zip(owners.split(_PIECE), slots.split(_PIECE)):
        classes = objects.classes.index_select(0, owner)
        logits = cls_logits.index_select(0, classes.add_(slot, alpha=num_classes))
        if predictions.quality_logits is not None:
            quality_logits = predictions.quality_logits.flatten().index_select(0, slot)
            logits = joint_logits(logits, quality_logits)
        scores.append(at_least_float32(logits).sigmoid().nan_to_num_(nan=1.0))
        row = rows.index_select(0, slot)
        iou = aligned_iou(decoded.index_select(0, row), boxes.index_select(0, owner))
        ious.append(iou.masked_fill_(odd.index_select(0, row), 1.0))
    return torch.cat(scores), torch.cat(ious)


def _decode(anchors: DenseAnchors, predictions: DensePredictions, seen: Tensor) -> Tensor:
    """The predicted boxes (Q, 4) of the locations (N, R) that are seen, in their order."""
    (slots,) = seen.flatten().nonzero(as_tuple=True)
    box_logits = predictions.box_logits.flatten(0, 1)
    boxes = []
    for slot in slots.split(_PIECE // 8):
        distances = predictions.distances_of(at_least_float32(box_logits.index_select(0, slot)))
        boxes.append(anchors.decode(distances, slot % len(anchors.boxes)))
    return torch.cat(boxes)
