"""From dense predictions to detections: threshold, per-level top-k, decode, NMS.

Only what survives the top-k is decoded.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from .box_distribution import at_least_float32, distances_to_boxes
from .quality import joint_logits
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
    image_idxs, location_idxs, classes, scores, counts = _candidates(
        predictions, anchors.level_sizes, score_thresh, topk_candidates
    )
    distances = box_representation(predictions.box_logits[image_idxs, location_idxs])
    boxes = distances_to_boxes(
        anchors.centers[location_idxs], distances * anchors.strides[location_idxs, None]
    )
    results = []
    for image_size, *candidates in zip(
        image_sizes, *(x.split(counts) for x in (boxes, scores, classes, location_idxs))
    ):
        image_boxes = clip_boxes_to_image(candidates[0], image_size)
        # It sets the classes apart by adding (class * image size) to the boxes: in float32, what is
        # left of a box's place would be coarse for a large class (1/8 px for LVIS's last).
        scores, classes = candidates[1].double(), candidates[2]
        keep = batched_nms(image_boxes.double(), scores, classes, nms_thresh)[:max_detections]
        kept_boxes, kept_scores, kept_classes, kept_idxs = (
            x[keep] for x in (image_boxes, *candidates[1:])
        )
        results.append(
            Instances(
                image_size,
                pred_boxes=Boxes(kept_boxes),
                scores=kept_scores,
                pred_classes=kept_classes,
                anchor_idxs=kept_idxs,
            )
        )
    return results


def _candidates(
    predictions: DensePredictions, level_sizes: list[int], score_thresh: float, topk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[int]]:
    """Images, locations, classes and scores (T,) of the batch's candidates, image after image, and
    how many each image has."""
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

    # Each level of each image is a run of idxs, of which the topk best stay.
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
