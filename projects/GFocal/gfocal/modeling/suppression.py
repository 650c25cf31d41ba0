"""Non-maximum suppression: which of T candidates of one image are detections, and their scores.

A suppression is called as ``suppression(boxes, scores, classes, limit)``: (T, 4) XYXY in pixels,
(T,), (T,) and the number of detections that are wanted. It answers a :class:`Kept`.

Source of soft-NMS: Bodla et al. 2017 (https://arxiv.org/abs/1704.04503), Fig. 2 and Sec. 3.
"""

from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, nms

from .settings import FLAG, IOU, POSITIVE, SCORE, Checked

__all__ = ["GaussianSoftNMS", "HardNMS", "Kept", "LinearSoftNMS", "Suppression"]


class Kept(NamedTuple):
    """What is left of T candidates, best first.

    Attributes:
        idxs: (D,) in 0..T-1.
        scores: (D,) their scores, which a soft suppression lowers.
    """

    idxs: Tensor
    scores: Tensor


class Suppression(Protocol):
    """Non-maximum suppression of the candidates of one image; see suppression.py."""

    def __call__(self, boxes: Tensor, scores: Tensor, classes: Tensor, limit: int) -> Kept: ...


class HardNMS(Checked):
    """A box is dropped if its IoU with a better one is above a threshold.

    Args:
        iou_thresh: that threshold.
        class_agnostic: boxes of another class count too. By default only those of the same class.

    Raises:
        ValueError: a value out of its range; also when it is set later.
    """

    SETTINGS = MappingProxyType({"iou_thresh": IOU, "class_agnostic": FLAG})

    def __init__(self, iou_thresh: float = 0.6, *, class_agnostic: bool = False):
        self.iou_thresh = iou_thresh
        self.class_agnostic = class_agnostic

    def __call__(self, boxes: Tensor, scores: Tensor, classes: Tensor, limit: int) -> Kept:
        # NMS sets the classes apart by adding (class * image size) to the boxes. In float32 the
        # boxes of a large class would then be coarse (1/8 px for LVIS's last class).
        if self.class_agnostic:
            idxs = nms(boxes.double(), scores.double(), self.iou_thresh)
        else:
            idxs = batched_nms(boxes.double(), scores.double(), classes, self.iou_thresh)
        idxs = idxs[:limit]
        return Kept(idxs, scores[idxs])


class _SoftNMS(Checked):
    """The best box is taken, the scores of those that overlap it are lowered, and so on."""

    min_score: float
    class_agnostic: bool
    class_shift: bool = False

    def factor(self, ious: Tensor) -> Tensor:
        """By what a score is multiplied, from the IoUs (T,) with the box that is taken."""
        raise NotImplementedError

    def __call__(self, boxes: Tensor, scores: Tensor, classes: Tensor, limit: int) -> Kept:
        # Scores only fall. So the boxes are taken in the order of their final scores, and those
        # after the first `limit` need not be known. No step waits for the device.
        boxes, left = boxes.double(), scores.double()
        if self.class_shift and len(boxes) and not self.class_agnostic:
            boxes = (boxes + classes[:, None] * (boxes.max() + 1)).float().double()
        idxs, taken = [], []
        for _ in range(min(limit, len(scores))):
            score, idx = left.max(dim=0, keepdim=True)
            ious = box_iou(boxes[idx], boxes).squeeze(0).nan_to_num(0.0)  # of boxes without area
            factor = self.factor(ious)
            if not self.class_agnostic:
                factor = torch.where(classes == classes[idx], factor, 1.0)
            left = (left * factor).scatter(0, idx, -1.0)
            idxs.append(idx)
            taken.append(score)
        if not idxs:
            return Kept(classes.new_zeros(0, dtype=torch.int64), scores)
        kept, final = torch.cat(idxs), torch.cat(taken)
        above = final >= self.min_score
        return Kept(kept[above], final[above].to(scores.dtype))


class LinearSoftNMS(_SoftNMS):
    """Soft-NMS: a score is multiplied by (1 - IoU), if the IoU is above a threshold.

    Args:
        iou_thresh: that threshold.
        min_score: boxes whose score falls below it are dropped.
        class_agnostic: boxes of another class count too. By default only those of the same class.

    Raises:
        ValueError: a value out of its range; also when it is set later.
    """

    SETTINGS = MappingProxyType({"iou_thresh": IOU, "min_score": SCORE, "class_agnostic": FLAG})

    def __init__(
        self, iou_thresh: float = 0.3, *, min_score: float = 1e-3, class_agnostic: bool = False
    ):
        self.iou_thresh = iou_thresh
        self.min_score = min_score
        self.class_agnostic = class_agnostic

    def factor(self, ious: Tensor) -> Tensor:
        return torch.where(ious > self.iou_thresh, 1 - ious, 1.0)


class GaussianSoftNMS(_SoftNMS):
    """Soft-NMS: a score is multiplied by exp(-IoU^2 / sigma).

    Args:
        sigma: the larger, the softer.
        min_score: boxes whose score falls below it are dropped.
        class_agnostic: boxes of another class count too. By default only those of the same class.
        class_shift: the boxes of class c are first moved by c * (largest coordinate + 1) and
            rounded to float32, as MMDetection does it. The scores of boxes thinner than a pixel
            then differ in the fifth digit.

    Raises:
        ValueError: a value out of its range; also when it is set later.
    """

    SETTINGS = MappingProxyType(
        {"sigma": POSITIVE, "min_score": SCORE, "class_agnostic": FLAG, "class_shift": FLAG}
    )

    def __init__(
        self,
        sigma: float = 0.5,
        *,
        min_score: float = 1e-3,
        class_agnostic: bool = False,
        class_shift: bool = False,
    ):
        self.sigma = sigma
        self.min_score = min_score
        self.class_agnostic = class_agnostic
        self.class_shift = class_shift

    def factor(self, ious: Tensor) -> Tensor:
        return (-ious.square() / self.sigma).exp()
