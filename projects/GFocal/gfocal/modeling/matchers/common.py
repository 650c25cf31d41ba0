"""Shared by matchers: padding, regions without background, and the check of an answer."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes
from torch import Tensor

from ..numerics import has_false, to_device
from ..structures import BACKGROUND, IGNORED, DenseAnchors, GroundTruth, Matches

__all__ = ["check_matches", "ignore_background_inside", "nothing_matched"]


def nothing_matched(anchors: DenseAnchors, truth: GroundTruth) -> Tensor:
    """(N, R) background on the images, ignored on the padding: a start for a matcher.

    Raises:
        ValueError: if ``truth.image_sizes`` is not one size an image.
    """
    num_images, image_sizes = len(truth.boxes), truth.image_sizes
    if image_sizes is None:
        shape = (num_images, len(anchors.boxes))
        return torch.full(shape, BACKGROUND, device=anchors.boxes.device)
    if len(image_sizes) != num_images:
        raise ValueError(f"got {len(image_sizes)} image_sizes for {num_images} images' boxes")
    return torch.where(anchors.inside(image_sizes), BACKGROUND, IGNORED)


def ignore_background_inside(
    matched_idxs: Tensor, anchors: DenseAnchors, regions: Sequence[Boxes | None]
) -> Tensor:
    """Ignores background locations with a centre in a region, on every level. A region may hold
    objects that nobody has drawn, as in a crowd.

    Positive locations stay positive. (mmdetection's ``ignore_iof_thr`` differs: it uses the share
    of the anchor's area that a region covers, and takes such anchors from the boxes too.)

    Args:
        matched_idxs: (N, R), the answer of a matcher.
        anchors: of the batch.
        regions: N ``Boxes``, XYXY pixels, x2 and y2 exclusive, on any device; or None.

    Returns:
        (N, R); ``matched_idxs`` itself if there are no regions.
    """
    if not any(boxes is not None and len(boxes) for boxes in regions):
        return matched_idxs
    x, y = anchors.centers.unbind(dim=1)
    rows = []
    for row, boxes in zip(matched_idxs, regions, strict=True):
        if boxes is not None and len(boxes):
            sides = boxes.tensor.to(x.device, non_blocking=True)
            x1, y1, x2, y2 = sides[..., None].unbind(dim=1)  # (I, 1) each
            inside = ((x >= x1) & (x < x2) & (y >= y1) & (y < y2)).any(dim=0)
            row = torch.where(inside & (row == BACKGROUND), IGNORED, row)
        rows.append(row)
    return torch.stack(rows)


def check_matches(matches: Any, anchors: DenseAnchors, truth: GroundTruth, matcher: Any) -> None:
    """Refuses an answer that would train on wrong boxes. It does not wait for a GPU: there, an
    index out of range is an assertion of the device.

    Args:
        matches: the matcher's answer.
        anchors, truth: the arguments of the matcher.
        matcher: for the message.

    Raises:
        TypeError: if the answer is not ``Matches`` of tensors, or its ``idxs`` are not int64.
        ValueError: if they have another shape, one is neither a box of its image nor a code, or a
            quality is not in [0, 1].
    """
    name = getattr(matcher, "__name__", None) or type(matcher).__name__
    if not isinstance(matches, Matches):
        raise TypeError(
            f"matcher {name} answered a {type(matches).__name__}; expected "
            "gfocal.modeling.structures.Matches(idxs, quality=None)"
        )
    idxs, shape = matches.idxs, (len(truth.boxes), len(anchors.boxes))
    for what, value in (("idxs", idxs), ("quality", matches.quality)):
        if value is None and what == "quality":
            continue
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the {what} of matcher {name} are a {type(value).__name__}; expected a tensor"
            )
        if tuple(value.shape) != shape:
            raise ValueError(
                f"the {what} of matcher {name} have shape {tuple(value.shape)}; expected "
                f"(images, locations) {shape}"
            )
    if idxs.dtype != torch.int64:
        raise TypeError(f"the idxs of matcher {name} are {idxs.dtype}; expected int64")
    good = (idxs >= IGNORED) & (idxs < to_device(truth.counts, idxs)[:, None])
    if has_false(good):
        image, location = (~good).nonzero()[0].tolist()
        raise ValueError(
            f"matcher {name} gave location {location} of image {image} of the batch the index "
            f"{idxs[image, location]}; expected that of one of the image's "
            f"{truth.counts[image]} boxes, {BACKGROUND} (background) or {IGNORED} (ignored)"
        )
    quality = matches.quality
    if quality is not None and has_false((quality >= 0) & (quality <= 1)):
        bad = quality[~((quality >= 0) & (quality <= 1))][0].item()
        raise ValueError(f"the quality of matcher {name} is {bad}; expected 0 to 1")
