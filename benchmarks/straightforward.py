"""GFL as its papers write it down: every box with every anchor, dense labels, everything decoded.

The package's way (:mod:`gfocal.benchmarks.ours`) is compared with it: the results in the tests,
time and memory in tools/benchmark.py.
"""

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch.nn.functional import cross_entropy
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, generalized_box_iou_loss

from gfocal.modeling.boxes import aligned_iou, boxes_to_distances, distances_to_boxes
from gfocal.modeling.losses import distribution_focal_loss, quality_focal_loss
from gfocal.modeling.structures import Matches


@torch.no_grad()
def atss(anchors, gt_boxes, topk=9):
    """ATSS (Alg. 1) with the (R, G) matrices of IoUs and distances, image after image.

    gt_boxes: N ``Boxes`` -> (N, R) index of the box, -1 background. It computes in the dtype of the
    boxes, and takes any of equally near anchors.
    """
    return torch.stack([_atss_of_image(anchors, boxes.tensor, topk) for boxes in gt_boxes])


def _atss_of_image(anchors, boxes, topk):
    anchor_boxes = anchors.boxes.to(boxes.dtype)
    matched = torch.full((len(anchor_boxes),), -1, device=boxes.device)
    if len(boxes) == 0:
        return matched
    ious = box_iou(anchor_boxes, boxes)
    centers = (anchor_boxes[:, :2] + anchor_boxes[:, 2:]) / 2
    box_centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    distances = (centers[:, None] - box_centers).square().sum(dim=-1).sqrt()
    nearest, start = [], 0
    for size in anchors.level_sizes:
        level = distances[start : start + size]
        nearest.append(level.topk(min(topk, size), dim=0, largest=False).indices + start)
        start += size
    candidates = torch.cat(nearest)  # (T, G)
    values = ious.gather(0, candidates)
    sides = boxes_to_distances(centers[candidates], boxes)
    positive = (values >= values.mean(dim=0) + values.std(dim=0)) & (sides.amin(dim=-1) > 0.01)
    claims = torch.full_like(ious, -1)
    claims.scatter_(0, candidates, torch.where(positive, values, -1))
    best, winner = claims.max(dim=1)
    return torch.where(best > -1, winner, matched)


@torch.no_grad()
def task_aligned(anchors, predictions, truth, topk=13):
    """TOOD (Sec. 3.2) with the (R, G) matrices of IoUs, alignments and sides, image after image.

    It takes any of equally aligned locations. The answers are ``Matches``.
    """
    scores = predictions.joint_logits().sigmoid()
    distances = predictions.box_representation(predictions.box_logits) * anchors.strides[:, None]
    decoded = distances_to_boxes(anchors.centers, distances)
    images = [
        _task_aligned_of_image(anchors, *of_image, topk)
        for of_image in zip(scores, decoded, (x.tensor for x in truth.boxes), truth.classes)
    ]
    return Matches(*map(torch.stack, zip(*images)))


def _task_aligned_of_image(anchors, scores, decoded, boxes, classes, topk):
    ious = box_iou(decoded, boxes)
    inside = boxes_to_distances(anchors.centers[:, None], boxes).amin(dim=-1) > 0.01
    aligned = scores[:, classes] * ious**6 * inside
    values, best = aligned.topk(topk, dim=0)
    claims = torch.full_like(ious, -1)
    claims.scatter_(0, best, torch.where(values > 0, ious.gather(0, best), -1))
    largest, winners = claims.max(dim=1)
    idxs = torch.where(largest > -1, winners, -1)
    own = idxs[:, None] == torch.arange(len(boxes), device=boxes.device)
    labels = aligned / (aligned * own).amax(dim=0) * (ious * own).amax(dim=0)
    return idxs, torch.where(own, labels, 0).sum(dim=1)


def losses(anchors, predictions, targets):
    """QFL, GIoU and DFL (v1 Eq. 2 and 6, v2 Eq. 3) of one worker, with dense labels."""
    logits = predictions.joint_logits()
    num_classes = logits.shape[-1]
    foreground = (targets.labels >= 0) & (targets.labels < num_classes)
    images, locations = foreground.nonzero(as_tuple=True)
    classes = targets.labels[images, locations]
    centers, strides = anchors.centers[locations], anchors.strides[locations, None]
    box_logits = predictions.box_logits[images, locations]
    representation = predictions.box_representation
    boxes = distances_to_boxes(centers, representation(box_logits) * strides)
    target_boxes = targets.boxes[images, locations]

    labels = torch.zeros_like(logits)
    labels[images, locations, classes] = aligned_iou(boxes.detach(), target_boxes)
    valid = (targets.labels >= 0)[..., None]
    loss_cls = (quality_focal_loss(logits, labels) * valid).sum()
    loss_cls = loss_cls / foreground.sum(dim=1).clamp(min=1).sum()

    weights = logits.detach().sigmoid().amax(dim=-1)[images, locations]
    giou = generalized_box_iou_loss(boxes, target_boxes)
    distances = boxes_to_distances(centers, target_boxes) / strides
    bins = (distances / representation.bin_width).clamp(0, representation.reg_max - 0.1)
    dfl = distribution_focal_loss(box_logits.flatten(0, 1), bins.flatten()).view_as(bins).mean(1)
    return {
        "loss_cls": loss_cls,
        "loss_box_reg": 2 * (giou * weights).sum() / weights.sum(),
        "loss_dfl": 0.25 * (dfl * weights).sum() / weights.sum(),
    }


def detections(
    anchors,
    predictions,
    image_sizes,
    *,
    score_thresh,
    topk_candidates,
    nms_thresh,
    max_detections,
):
    """Scores and boxes of all locations; then threshold, top-k of each level, and NMS."""
    scores = predictions.joint_logits().sigmoid()
    distances = predictions.box_representation(predictions.box_logits) * anchors.strides[:, None]
    boxes = distances_to_boxes(anchors.centers, distances)
    results = []
    for image_scores, image_boxes, image_size in zip(scores, boxes, image_sizes):
        image_boxes = clip_boxes_to_image(image_boxes, image_size)
        best, start = [], 0
        for level in image_scores.split(anchors.level_sizes):
            values, order = level.flatten().topk(min(topk_candidates, level.numel()))
            order = order[values > score_thresh]
            best.append(order + start * level.shape[1])
            start += len(level)
        kept = torch.cat(best)
        num_classes = image_scores.shape[1]
        locations, classes = kept // num_classes, kept % num_classes
        values = image_scores[locations, classes]
        keep = batched_nms(image_boxes[locations], values, classes, nms_thresh)[:max_detections]
        results.append(
            Instances(
                image_size,
                pred_boxes=Boxes(image_boxes[locations[keep]]),
                scores=values[keep],
                pred_classes=classes[keep],
                anchor_idxs=locations[keep],
            )
        )
    return results


def painted_heatmaps(shape, image_idxs, classes, cells, radii, dtype=torch.float32):
    """The Gaussian of each object in turn, cut at the border, max-merged (CornerNet, Sec. 3.2)."""
    heatmaps = torch.zeros(shape, dtype=dtype, device=cells.device)
    height, width = shape[-2:]
    for image, label, (x, y), r in zip(
        image_idxs.tolist(), classes.tolist(), cells.tolist(), radii.tolist()
    ):
        sigma = (2 * r + 1) / 6
        offsets = torch.arange(-r, r + 1, dtype=dtype, device=cells.device)
        squares = offsets[:, None].square() + offsets.square()
        gaussian = torch.exp(-squares / (2 * sigma**2))
        left, right = min(x, r), min(width - x, r + 1)
        top, bottom = min(y, r), min(height - y, r + 1)
        there = heatmaps[image, label, y - top : y + bottom, x - left : x + right]
        torch.maximum(there, gaussian[r - top : r + bottom, r - left : r + right], out=there)
    return heatmaps


def pair_corners(top_left, bottom_right, limit, max_distance=0.5):
    """Every top left with every bottom right corner: sides, box, distance, class and score of each
    pair, as CornerNet's code has them; then the best."""
    images, count = top_left.scores.shape

    def first(x):
        return x.unsqueeze(2).expand(images, count, count).contiguous()

    def second(x):
        return x.unsqueeze(1).expand(images, count, count).contiguous()

    x0, y0 = (first(x) for x in top_left.points.unbind(-1))
    x1, y1 = (second(x) for x in bottom_right.points.unbind(-1))
    boxes = torch.stack([x0, y0, x1, y1], dim=-1)
    distances = (first(top_left.embeddings) - second(bottom_right.embeddings)).abs()
    scores = (first(top_left.scores) + second(bottom_right.scores)) / 2
    classes = first(top_left.classes)
    scores[classes != second(bottom_right.classes)] = 0
    scores[distances > max_distance] = 0
    scores[x1 <= x0] = 0
    scores[y1 <= y0] = 0
    scores, idxs = scores.view(images, -1).topk(limit, dim=1)
    boxes = boxes.view(images, -1, 4).gather(1, idxs[..., None].expand(-1, -1, 4))
    return boxes, scores, classes.view(images, -1).gather(1, idxs)


def ssd_labels(priors, truth, num_classes=80):
    """Image after image the IoU of every box with every prior; then each box takes its best."""
    rows = []
    for boxes, classes in zip(truth.boxes, truth.classes):
        labels = torch.full((len(priors.boxes),), num_classes, device=priors.boxes.device)
        if len(boxes):
            ious = pairwise_iou(boxes, Boxes(priors.boxes))
            best, box = ious.max(dim=0)
            labels[best >= 0.5] = classes[box[best >= 0.5]]
            for index, prior in enumerate(ious.max(dim=1).indices):
                labels[prior] = classes[index]
        rows.append(labels)
    return torch.stack(rows)


def ssd_loss(logits, labels):
    """Image after image the cross entropy of every prior; the negatives are sorted by it."""
    total, divisor = logits.new_zeros(()), 0
    for image_logits, image_labels in zip(logits, labels):
        losses = cross_entropy(image_logits, image_labels, reduction="none")
        positives = image_labels < logits.shape[2] - 1
        count = int(positives.sum())
        negatives = losses[~positives].sort(descending=True).values
        total = total + losses[positives].sum() + negatives[: 3 * count].sum()
        divisor += max(count, 1)
    return total / divisor
