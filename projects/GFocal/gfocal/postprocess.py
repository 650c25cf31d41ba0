"""From dense predictions to detections: threshold, per-level top-k, decode, NMS.

Only what survives the top-k is decoded.
"""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from .box_distribution import distances_to_boxes
from .structures import DenseAnchors, DensePredictions

__all__ = ["detections"]


def detections(
    anchors: DenseAnchors,
    predictions: DensePredictions,
    image_sizes: Sequence[tuple[int, int]],
    box_representation: nn.Module,
    *,
    score_thresh: float,
    topk_candidates: int,
    nms_thresh: float,
    max_detections: int,
) -> list[Instances]:
    """Detections of each image, best first.

    Args:
        anchors, predictions: see structures.py.
        image_sizes: N (height, width) of the images without padding, pixels.
        box_representation: reads the box channels.
        score_thresh: candidates are the (location, class) pairs that score above it.
        topk_candidates: at most so many candidates a level, the best.
        nms_thresh: IoU above which the lower-scored box of the same class is dropped.
        max_detections: at most so many detections an image.

    Returns:
        N ``Instances`` with pred_boxes (XYXY pixels, clipped to the image), scores, pred_classes
        and anchor_idxs, the location in 0..R-1 that made each detection.
    """
    logits = predictions.joint_logits()
    results = []
    for image, image_size in enumerate(image_sizes):
        location_idxs, classes, scores = _candidates(
            logits[image], anchors.level_sizes, score_thresh, topk_candidates
        )
        distances = box_representation(predictions.box_logits[image, location_idxs])
        boxes = distances_to_boxes(
            anchors.centers[location_idxs], distances * anchors.strides[location_idxs, None]
        )
        boxes = clip_boxes_to_image(boxes, image_size)
        keep = batched_nms(boxes, scores, classes, nms_thresh)[:max_detections]
        results.append(
            Instances(
                image_size,
                pred_boxes=Boxes(boxes[keep]),
                scores=scores[keep],
                pred_classes=classes[keep],
                anchor_idxs=location_idxs[keep],
            )
        )
    return results


def _candidates(
    logits: Tensor, level_sizes: list[int], score_thresh: float, topk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Locations (T,), classes (T,) and scores (T,) of one image's candidates; logits (R, K)."""
    num_classes = logits.shape[-1]
    idxs, scores = [], []
    start = 0
    for level_logits in logits.split(level_sizes):
        level_scores = level_logits.flatten().sigmoid()
        above = (level_scores > score_thresh).nonzero().squeeze(1)
        level_scores = level_scores[above]
        if len(above) > topk:
            level_scores, best = level_scores.topk(topk)
            above = above[best]
        idxs.append(above + start * num_classes)
        scores.append(level_scores)
        start += len(level_logits)
    flat = torch.cat(idxs)
    return flat.div(num_classes, rounding_mode="floor"), flat % num_classes, torch.cat(scores)
