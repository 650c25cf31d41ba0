"""From dense predictions to detections: threshold, per-level top-k, decode, NMS.

Only candidates that survive the top-k are decoded.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from .numerics import at_least_float32, joint_logits
from .structures import DenseAnchors, DensePredictions

__all__ = ["NMSPostProcess"]


class NMSPostProcess:
    """Score threshold, per-level top-k, decoding, class-aware NMS.

    Args:
        score_thresh: candidates are the (location, class) pairs that score above it.
        topk_candidates: at most so many candidates a level, the best.
        nms_thresh: IoU above which the lower-scored box of the same class is dropped.
        max_detections: at most so many detections an image.
    """

    def __init__(
        self,
        *,
        score_thresh: float = 0.05,
        topk_candidates: int = 1000,
        nms_thresh: float = 0.6,
        max_detections: int = 100,
    ):
        self.score_thresh = score_thresh
        self.topk_candidates = topk_candidates
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"

    def __call__(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Detections of each image, best first.

        Args:
            anchors, predictions: see structures.py.
            image_sizes: of the first images of the batch, (height, width) without padding, pixels.

        Returns:
            ``Instances`` for each of these, with pred_boxes (XYXY pixels, clipped to the image),
            scores, pred_classes and anchor_idxs (each detection's location in 0..R-1).
        """
        image_idxs, location_idxs, classes, scores, counts = _candidates(
            predictions, anchors.level_sizes, self.score_thresh, self.topk_candidates
        )
        distances = predictions.distances_of(predictions.box_logits[image_idxs, location_idxs])
        boxes = anchors.decode(distances, location_idxs)
        per_image = (x.split(counts) for x in (boxes, scores, classes, location_idxs))
        return [
            self._detections(image_size, *candidates)
            for image_size, *candidates in zip(image_sizes, *per_image)
        ]

    def _detections(
        self,
        image_size: tuple[int, int],
        boxes: Tensor,
        scores: Tensor,
        classes: Tensor,
        location_idxs: Tensor,
    ) -> Instances:
        boxes = clip_boxes_to_image(boxes, image_size)
        # NMS sets the classes apart by adding (class * image size) to the boxes. In float32 the
        # boxes of a large class would then be coarse (1/8 px for LVIS's last class).
        keep = batched_nms(boxes.double(), scores.double(), classes, self.nms_thresh)
        keep = keep[: self.max_detections]
        return Instances(
            image_size,
            pred_boxes=Boxes(boxes[keep]),
            scores=scores[keep],
            pred_classes=classes[keep],
            anchor_idxs=location_idxs[keep],
        )


def _candidates(
    predictions: DensePredictions, level_sizes: list[int], score_thresh: float, topk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[int]]:
    """Images, locations, classes and scores (T,) of the batch's candidates, image after image, and
    the number of candidates of each image."""
    cls_logits, quality_logits = at_least_float32(predictions.cls_logits), None
    if predictions.quality_logits is not None:
        quality_logits = at_least_float32(predictions.quality_logits)
    num_locations = cls_logits.shape[1]
    # sigmoid(cls) * sigmoid(quality) > t is cls > logit(t / sigmoid(quality)). So one comparison of
    # the best class with a threshold, less a margin for rounding, finds the few locations that can
    # pass, and no dense score is ever computed.
    thresh = torch.as_tensor(score_thresh, dtype=cls_logits.dtype)
    if quality_logits is not None:
        thresh = thresh / quality_logits.sigmoid()
    passed = cls_logits.amax(dim=-1, keepdim=True) > thresh.clamp(0, 1).logit() - 1e-3
    idxs = passed.flatten().nonzero().squeeze(1)
    logits = cls_logits.flatten(0, 1)[idxs]
    if quality_logits is not None:
        logits = joint_logits(logits, quality_logits.flatten(0, 1)[idxs])
    scores = logits.sigmoid()
    rows, classes = (scores > score_thresh).nonzero(as_tuple=True)
    idxs, scores = idxs[rows], scores[rows, classes]

    # Each level of each image is a run of idxs. The topk best of a run stay.
    firsts = torch.tensor([0, *level_sizes[:-1]]).cumsum(0)
    firsts = firsts + num_locations * torch.arange(len(cls_logits))[:, None]
    starts = torch.searchsorted(idxs, firsts.flatten().to(idxs.device, non_blocking=True))
    runs = list(pairwise([*starts.tolist(), len(idxs)]))
    lengths = [min(topk, end - start) for start, end in runs]
    if sum(lengths) < len(idxs):
        keep = torch.cat(
            [start + scores[start:end].topk(n).indices for (start, end), n in zip(runs, lengths)]
        )
        idxs, classes, scores = idxs[keep], classes[keep], scores[keep]
    levels = len(level_sizes)
    counts = [sum(lengths[i : i + levels]) for i in range(0, len(lengths), levels)]
    images, locations = idxs.div(num_locations, rounding_mode="floor"), idxs % num_locations
    return images, locations, classes, scores, counts
