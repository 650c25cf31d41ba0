"""Does an exported file find what the detector finds? Compared on images that were not traced.

The reference is the detector as it is trained and evaluated, in float32: its own inference and
post-processing, nothing of the tensor-only network. Level "raw" is compared with its ``raw``. Level
"decoded" is compared with its ``decode_levels``, and has each of its detections.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from detectron2.structures import Instances
from torch import Tensor
from torch.nn import functional as F

from ..modeling.detector import Detector
from ..modeling.postprocess import NMSPostProcess
from ..modeling.suppression import HardNMS
from .card import ModelCard
from .comparing import (
    among_candidates,
    compare,
    compare_ranked,
    is_ranked,
    largest,
    with_own_peaks,
)
from .formats import Runnable

__all__ = [
    "LIMITS",
    "Difference",
    "Limits",
    "check_images",
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
HIGHEST_THRESHOLD = 0.999  # a detector takes none of 1, which a softmax may reach


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
    a wide one, a high one, a batch, within the square that the network pads to; or of the one size
    that a graph takes. (Smooth noise at several
    scales: on flat pictures many scores would be equal, and which of two equal boxes NMS keeps is
    nobody's contract.)"""
    generator = torch.Generator().manual_seed(seed)
    channels = len(card.pixel_mean)
    batches = []
    shapes = [(1, 161, 163), (4, 256, 320), (1, 480, 333), (2, 199, 414)]
    if card.image_size:
        shapes = [(count, *card.image_size) for count in (1, 3)]
    elif card.square_size:
        most = card.square_size
        shapes = [(n, min(height, most), min(width, most)) for n, height, width in shapes]
    for count, height, width in shapes:
        batch = torch.zeros(count, channels, height, width)
        for step in (1, 4, 16, 64):
            shape = (count, channels, max(height // step, 1), max(width // step, 1))
            noise = torch.rand(shape, generator=generator)
            batch += F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
        batches.append((255 * batch / 4).round())
    return batches


def parity(
    detector: Detector, graph: Runnable, batches: Sequence[Tensor], more: Sequence[Tensor] = ()
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
    card = graph.card
    if card.level != "full":
        with _finding_something(detector, batches[0]):
            return [_compared(detector, graph, batch) for batch in (*batches, *more)]
    rows = [_compared(detector, graph, batch) for batch in (*batches, *more)]
    for pairs in (card.max_detections, 4 * card.topk_candidates):
        thresholds = _thresholds(detector, batches[0], pairs)
        with _with_thresholds(detector, thresholds):
            other = graph.with_score_thresh(thresholds)
            rows += [_compared(detector, other, batch) for batch in batches]
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


def _compared(detector: Detector, graph: Runnable, batch: Tensor) -> Difference:
    card = graph.card
    images = _images_of(batch, card)
    theirs = graph(*inputs_of(detector, card, images))
    shape = (batch.shape[0], batch.shape[2], batch.shape[3])
    if card.level == "full":
        ours = _detections(detector, images, card)
        lowest = float(thresholds_of(detector).min())
        differences = compare(ours, theirs, card.clips_boxes)
        return Difference(shape, lowest, len(ours["scores"]), *differences)
    ours = _dense(detector, images, card)
    limit, share = LIMITS[card.precision].score, LIMITS[card.precision].share
    ranked = card.level == "decoded" and is_ranked(ours)
    if ranked:
        score, box = compare_ranked(ours, theirs, limit)
    else:
        of_boxes = [name for name in ours if name.startswith(("box", "stds"))]
        if card.level == "decoded":
            theirs["scores"] = with_own_peaks(ours["scores"], theirs["scores"], share)
        worst = {name: _worst(x, theirs[name], card.level == "raw") for name, x in ours.items()}
        box = max((worst[name] for name in of_boxes), default=0.0)
        score = max((x for name, x in worst.items() if name not in of_boxes), default=0.0)
    if card.level == "decoded" and isinstance(detector.postprocess, NMSPostProcess):
        found = _detected(detector, images, card)
        lowers = not isinstance(detector.postprocess.suppression, HardNMS)
        far = among_candidates(found, theirs, limit, lowers)
        score, box = max(score, far[0]), max(box, far[1])
    locations = sum(x.shape[1] for name, x in ours.items() if name.startswith("box"))
    if not locations:  # other outputs, (N, R, C) or maps (N, C, H, W)
        rows = (x.shape[1] if x.ndim == 3 else x[0, 0].numel() for x in ours.values())
        locations = max(rows)
    if ranked:  # others are no candidates
        locations = int((ours["scores"].amax(dim=-1) > LOWEST_SCORE).sum())
    return Difference(shape, None, locations, score, box, 0)


@contextlib.contextmanager
def _finding_something(detector: Detector, batch: Tensor) -> Iterator[None]:
    """Inside it a detector has such thresholds that it finds something."""
    part = detector.postprocess
    if not isinstance(part, NMSPostProcess):
        yield
        return
    with _with_thresholds(detector, _thresholds(detector, batch, part.max_detections)):
        yield


@contextlib.contextmanager
def _with_thresholds(detector: Detector, thresholds: Tensor) -> Iterator[None]:
    before = detector.test_score_thresh
    detector.test_score_thresh = thresholds.tolist()
    try:
        yield
    finally:
        detector.test_score_thresh = before


def _images_of(batch: Tensor, card: ModelCard) -> list[Tensor]:
    """The images of a batch. Where the graph is told their sizes, each has another one."""
    if not card.takes_sizes or card.image_size:
        return list(batch)
    height, width = batch.shape[2:]
    return [
        image[:, : max(height - 7 * i, 1), : max(width - 5 * i, 1)] for i, image in enumerate(batch)
    ]


def _worst(ours: Tensor, theirs: Tensor, relative: bool) -> float:
    if ours.shape != theirs.shape:
        return math.inf
    scale = max(float(ours.abs().max()), 1.0) if relative else 1.0
    return largest(ours - theirs) / scale


def inputs_of(detector: Detector, card: ModelCard, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What a file takes of images (C, H, W) with values 0..255. With preprocessing inside they are
    of one size."""
    if card.preprocessing == "inside":
        return (torch.stack([*images]),)
    batch = detector.preprocess_image([{"image": image} for image in images])
    sizes = (torch.tensor(batch.image_sizes),) if card.takes_sizes else ()
    return (batch.tensor, *sizes)


def thresholds_of(detector: Detector) -> Tensor:
    """(K,) score thresholds of a detector whose post-processing has them."""
    thresholds = cast("NMSPostProcess", detector.postprocess).thresholds(detector.num_classes)
    return torch.tensor(thresholds).expand(detector.num_classes)


@torch.no_grad()
def _detections(detector: Detector, images: Sequence[Tensor], card: ModelCard) -> dict[str, Tensor]:
    """The detector's answers, as level "full" has them."""
    inputs = [{"image": image} for image in images]
    return _flat([x["instances"] for x in detector(inputs)], card)


@torch.no_grad()
def _detected(detector: Detector, images: Sequence[Tensor], card: ModelCard) -> dict[str, Tensor]:
    """The same in pixels of the network's input, before the output decides which of them stay."""
    batch = detector.preprocess_image([{"image": image} for image in images])
    found = detector.inference(*detector.predict(batch.tensor), batch.image_sizes)
    return _flat(found, card)


def _flat(found: Sequence[Instances], card: ModelCard) -> dict[str, Tensor]:
    ret = {
        "boxes": torch.cat([x.pred_boxes.tensor for x in found]),
        "scores": torch.cat([x.scores for x in found]),
        "classes": torch.cat([x.pred_classes for x in found]),
        "image_idxs": torch.cat([torch.full_like(x.pred_classes, i) for i, x in enumerate(found)]),
    }
    # A postprocess that has its standard deviations switched off gives none beside dense ones.
    if card.stds and all(x.has("pred_box_stds") for x in found):
        ret["stds"] = torch.cat([x.pred_box_stds for x in found])
    return ret


@torch.no_grad()
def _dense(detector: Detector, images: Sequence[Tensor], card: ModelCard) -> dict[str, Tensor]:
    """The outputs of level "raw" or "decoded"."""
    batch = detector.preprocess_image([{"image": image} for image in images])
    if card.level == "raw":
        return detector.raw(batch.tensor, **({"stds": True} if card.stds else {}))
    decoded = detector.decode_levels(batch.tensor)
    boxes = decoded.boxes
    if card.clips_boxes:
        limits = boxes.new_tensor([[width, height] * 2 for height, width in batch.image_sizes])
        limits = limits - getattr(detector.postprocess, "clip_margin", 0.0)
        boxes = torch.minimum(boxes.clamp(min=0), limits[:, None])
    stds = [decoded.stds()] if card.stds and decoded.stds else []
    return dict(zip(card.outputs, [boxes, decoded.scores, *stds]))


@torch.no_grad()
def _thresholds(detector: Detector, batch: Tensor, pairs: int) -> Tensor:
    """(K,) score thresholds that about so many (location, class) pairs of an image exceed, as many
    of each class. No pair has the score of a threshold: rounding would decide about it."""
    images = detector.preprocess_image([{"image": batch[0]}]).tensor
    _, scores = detector.decode(images)
    scores = scores[0].sort(dim=0, descending=True).values  # (R, K)
    rank = min(max(pairs // scores.shape[1], 1), len(scores) - 1)
    return scores[rank - 1 : rank + 1].mean(dim=0).clamp(LOWEST_SCORE, HIGHEST_THRESHOLD)
