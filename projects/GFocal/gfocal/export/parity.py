"""Does an exported file find what the detector finds? Compared on images that were not traced.

The reference is the detector as it is trained and evaluated, in float32: its own anchors, decoding
and post-processing, nothing of the tensor-only network.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from ..detectors.gfl import GFL
from ..modeling.postprocess import NMSPostProcess
from .card import ModelCard
from .formats import Runnable

__all__ = [
    "LIMITS",
    "Difference",
    "Limits",
    "check_images",
    "compare",
    "inputs_of",
    "parity",
    "table",
    "thresholds_of",
]


class Limits(NamedTuple):
    """What differences pass.

    Attributes:
        score: of a score. Of level "raw": of a logit, as a share of the largest.
        box: of a side, pixels. Of level "raw" likewise.
        share: of the detections that only one of the two has.
    """

    score: float
    box: float
    share: float


# By precision of the file. int8 has none: what it costs in AP only an evaluation tells.
LIMITS = {
    "float32": Limits(1e-5, 1e-3, 0.01),
    "float16": Limits(0.02, 4.0, 0.1),
    "int8": Limits(1.0, math.inf, math.inf),
}


# Below it, runtimes' own sigmoid differs from PyTorch's by as much as the score.
LOWEST_SCORE = 1e-4


class Difference(NamedTuple):
    """How a file differs from the detector on one batch.

    Attributes:
        shape: (N, height, width) of the batch.
        threshold: of the scores, the lowest of the classes; None where nothing is thresholded.
        found: detections of the detector; or locations, below level "full".
        score, box: the largest difference, as :class:`Limits` has it; inf where one is no number.
            (``box`` is also of the standard deviations, where a file has them.)
        differ: number of detections that only one of the two has.
    """

    shape: tuple[int, int, int]
    threshold: float | None
    found: int
    score: float
    box: float
    differ: int

    def passes(self, limits: Limits) -> bool:
        """Whether all is within limits (a nan is not)."""
        return (
            self.score <= limits.score
            and self.box <= limits.box
            and self.differ <= limits.share * max(self.found, 1)
        )


def check_images(card: ModelCard, seed: int = 0) -> list[Tensor]:
    """Batches (N, C, H, W) of made-up pictures, values 0..255: sizes that are multiples of nothing,
    a wide one, a high one, a batch. (Smooth noise at several scales: on flat pictures many scores
    would be equal, and which of two equal boxes NMS keeps is nobody's contract.)"""
    generator = torch.Generator().manual_seed(seed)
    channels = len(card.pixel_mean)
    batches = []
    for count, height, width in ((1, 161, 163), (4, 256, 320), (1, 480, 333), (2, 199, 414)):
        batch = torch.zeros(count, channels, height, width)
        for step in (1, 4, 16, 64):
            shape = (count, channels, height // step, width // step)
            noise = torch.rand(shape, generator=generator)
            batch += F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
        batches.append((255 * batch / 4).round())
    return batches


def parity(
    detector: GFL, graph: Runnable, batches: Sequence[Tensor], more: Sequence[Tensor] = ()
) -> list[Difference]:
    """Compares a file with the detector on batches.

    A file of level "full" is run with other thresholds too, one for each class. With the higher
    ones, scores decide what is found. With the lower ones, top-k, NMS and the number of detections
    do.

    Args:
        detector: in float32 and eval mode. Its threshold is set for a while.
        graph: the file.
        batches: (N, C, H, W), values 0..255.
        more: likewise; on these, the file runs with its own thresholds only.
    """
    rows = [_compared(detector, graph, batch) for batch in (*batches, *more)]
    card = graph.card
    if card.level != "full":
        return rows
    before = detector.test_score_thresh
    try:
        for pairs in (card.max_detections, 4 * card.topk_candidates):
            thresholds = _thresholds(detector, batches[0], pairs)
            detector.test_score_thresh = thresholds.tolist()
            other = graph.with_score_thresh(thresholds)
            rows += [_compared(detector, other, batch) for batch in batches]
    finally:
        detector.test_score_thresh = before
    return rows


def table(rows: Sequence[Difference], level: str) -> str:
    """The rows as text."""
    what = "detections" if level == "full" else "locations"
    columns = ["batch", "threshold", what, "worst score", "worst box (px)", "differ"]
    lines = [columns]
    for row in rows:
        shape = "{} x {} x {}".format(*row.shape)
        threshold = "" if row.threshold is None else f"{row.threshold:.4g}"
        lines.append(
            [shape, threshold, str(row.found), f"{row.score:.1e}", f"{row.box:.1e}"]
            + [str(row.differ) if level == "full" else ""]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(x.rjust(w) for x, w in zip(line, widths)) for line in lines)


def compare(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[float, float, int]:
    """Compares detections of level "full".

    Detections of one image and class are one if their IoU is at least 0.9; NMS leaves no two such.

    Returns:
        The largest difference of scores and of sides and standard deviations (pixels) of those that
        both have, and the number of those that only one has: all, if theirs are in another order
        than image after image, each best first.
    """
    score, box = 0.0, 0.0
    differ = 0 if _in_order(theirs) else len(theirs["scores"])
    keys = {(i, c) for x in (ours, theirs) for i, c in _groups(x)}
    for key in keys:
        a, b = (_of_group(x, key) for x in (ours, theirs))
        pairs = _pairs(box_iou(a["boxes"], b["boxes"]))
        differ += len(a["boxes"]) + len(b["boxes"]) - 2 * len(pairs)
        i, j = [i for i, _ in pairs], [j for _, j in pairs]
        score = max(score, _largest(a["scores"][i] - b["scores"][j]))
        for name in ("boxes", "stds"):
            if name in a:
                box = max(box, _largest(a[name][i] - b[name][j]))
    return score, box, differ


def _pairs(ious: Tensor) -> list[tuple[int, int]]:
    """Row and column of the best of an IoU matrix, then of the best of the others, and so on."""
    ious, pairs = ious.clone(), []
    while ious.numel() and ious.max() >= 0.9:
        row, column = divmod(int(ious.argmax()), ious.shape[1])
        pairs.append((row, column))
        ious[row], ious[:, column] = -1, -1
    return pairs


def _in_order(found: dict[str, Tensor]) -> bool:
    images, scores = found["image_idxs"], found["scores"]
    new = images.diff()
    return bool(((new > 0) | ((new == 0) & (scores.diff() <= 0))).all())


def _largest(differences: Tensor) -> float:
    """The largest absolute value, 0.0 of none; inf if one is no number. (``max`` of Python passes
    over a nan.)"""
    if not differences.numel():
        return 0.0
    return float(differences.abs().nan_to_num(nan=math.inf, posinf=math.inf).max())


def _compared(detector: GFL, graph: Runnable, batch: Tensor) -> Difference:
    card = graph.card
    images = _images_of(batch, card)
    theirs = graph(*inputs_of(detector, card, images))
    shape = (batch.shape[0], batch.shape[2], batch.shape[3])
    if card.level == "full":
        ours = _detections(detector, images, card)
        lowest = float(thresholds_of(detector).min())
        return Difference(shape, lowest, len(ours["scores"]), *compare(ours, theirs))
    ours = _dense(detector, images, card)
    of_boxes = [name for name in ours if name.startswith(("box", "stds"))]
    worst = {name: _worst(x, theirs[name], card.level == "raw") for name, x in ours.items()}
    box = max(worst[name] for name in of_boxes)
    score = max(x for name, x in worst.items() if name not in of_boxes)
    locations = sum(x.shape[1] for name, x in ours.items() if name.startswith("box"))
    return Difference(shape, None, locations, score, box, 0)


def _images_of(batch: Tensor, card: ModelCard) -> list[Tensor]:
    """The images of a batch. Where the graph is told their sizes, each has another one."""
    if card.preprocessing == "inside":
        return list(batch)
    height, width = batch.shape[2:]
    return [
        image[:, : max(height - 7 * i, 1), : max(width - 5 * i, 1)] for i, image in enumerate(batch)
    ]


def _worst(ours: Tensor, theirs: Tensor, relative: bool) -> float:
    if ours.shape != theirs.shape:
        return math.inf
    scale = max(float(ours.abs().max()), 1.0) if relative else 1.0
    return _largest(ours - theirs) / scale


def inputs_of(detector: GFL, card: ModelCard, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What a file takes of images (C, H, W) with values 0..255. With preprocessing inside they are
    of one size."""
    if card.preprocessing == "inside":
        return (torch.stack([*images]),)
    batch = detector.preprocess_image([{"image": image} for image in images])
    if card.level == "raw":
        return (batch.tensor,)
    return batch.tensor, torch.tensor(batch.image_sizes)


def thresholds_of(detector: GFL) -> Tensor:
    """(K,) score thresholds of a detector whose post-processing has them."""
    thresholds = cast("NMSPostProcess", detector.postprocess).thresholds(detector.num_classes)
    return torch.tensor(thresholds).expand(detector.num_classes)


@torch.no_grad()
def _detections(detector: GFL, images: Sequence[Tensor], card: ModelCard) -> dict[str, Tensor]:
    inputs = [{"image": image} for image in images]
    found = [x["instances"] for x in detector(inputs)]
    ret = {
        "boxes": torch.cat([x.pred_boxes.tensor for x in found]),
        "scores": torch.cat([x.scores for x in found]),
        "classes": torch.cat([x.pred_classes for x in found]),
        "image_idxs": torch.cat([torch.full_like(x.pred_classes, i) for i, x in enumerate(found)]),
    }
    if card.stds:
        ret["stds"] = torch.cat([x.pred_box_stds for x in found])
    return ret


@torch.no_grad()
def _dense(detector: GFL, images: Sequence[Tensor], card: ModelCard) -> dict[str, Tensor]:
    """The outputs of level "raw" or "decoded"."""
    batch, anchors, predictions = detector.forward_dense([{"image": image} for image in images])
    representation: Any = detector.head.box_representation
    stds = [representation.std(predictions.box_logits)] if card.stds else []
    if card.level == "raw":
        tensors = [*predictions.tensors, *stds]
        levels = [x for tensor in tensors for x in tensor.split(anchors.level_sizes, dim=1)]
        return dict(zip(card.outputs, levels))
    boxes = anchors.decode(predictions.distances_of(predictions.box_logits))
    limits = boxes.new_tensor([[width, height] * 2 for height, width in batch.image_sizes])
    boxes = torch.minimum(boxes.clamp(min=0), limits[:, None])
    stds = [x * anchors.strides[:, None] for x in stds]
    return dict(zip(card.outputs, [boxes, predictions.joint_logits().sigmoid(), *stds]))


@torch.no_grad()
def _thresholds(detector: GFL, batch: Tensor, pairs: int) -> Tensor:
    """(K,) score thresholds that about so many (location, class) pairs of an image exceed, as many
    of each class. No pair has the score of a threshold: rounding would decide about it."""
    _, _, predictions = detector.forward_dense([{"image": batch[0]}])
    scores = predictions.joint_logits().sigmoid()[0].sort(dim=0, descending=True).values  # (R, K)
    rank = min(max(pairs // scores.shape[1], 1), len(scores) - 1)
    return scores[rank - 1 : rank + 1].mean(dim=0).clamp(min=LOWEST_SCORE)


def _groups(found: dict[str, Tensor]) -> Iterator[tuple[int, int]]:
    yield from zip(found["image_idxs"].tolist(), found["classes"].tolist())


def _of_group(found: dict[str, Tensor], key: tuple[int, int]) -> dict[str, Tensor]:
    rows = (found["image_idxs"] == key[0]) & (found["classes"] == key[1])
    return {name: x[rows] for name, x in found.items()}
