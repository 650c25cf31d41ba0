"""Task-aligned assignment (TOOD, https://arxiv.org/abs/2108.07755, Sec. 3.2) as the ``matcher``."""

import torch
from torchvision.ops import box_iou

from gfocal.boxes import boxes_to_distances
from gfocal.matchers import BACKGROUND, nothing_matched
from gfocal.structures import DenseAnchors, DensePredictions, GroundTruth, Matches


class TaskAlignedMatcher:
    """Positive are the ``topk`` locations inside a box of the largest score^alpha * IoU^beta; their
    soft label is that alignment, scaled so that its largest of a box is the box's largest IoU."""

    def __init__(self, topk: int = 13, alpha: float = 1.0, beta: float = 6.0):
        self.topk, self.alpha, self.beta = topk, alpha, beta

    def __call__(
        self, anchors: DenseAnchors, truth: GroundTruth, predictions: DensePredictions
    ) -> Matches:
        idxs, scores = nothing_matched(anchors, truth), predictions.joint_logits().sigmoid()
        quality = torch.zeros_like(scores[..., 0])
        predicted = anchors.decode(predictions.distances_of(predictions.box_logits))
        for i, (boxes, classes) in enumerate(zip(truth.boxes, truth.classes)):
            if len(boxes):
                ious = box_iou(boxes.tensor, predicted[i])  # (G, R)
                sides = boxes_to_distances(anchors.centers, boxes.tensor[:, None])
                free = (sides.amin(dim=-1) > 0) & (idxs[i] == BACKGROUND)
                aligned = scores[i].T[classes] ** self.alpha * ious**self.beta * free
                least = aligned.topk(min(self.topk, len(idxs[i]))).values[:, -1:]
                claims = torch.where((aligned > 0) & (aligned >= least), ious, 0.0)
                largest, owners = claims.max(dim=0)
                idxs[i] = torch.where(largest > 0, owners, idxs[i])
                scale = claims.amax(dim=1, keepdim=True) / aligned.amax(1, True).clamp(min=1e-12)
                quality[i] = (aligned * scale).gather(0, owners[None])[0] * (largest > 0)
        return Matches(idxs, quality)
