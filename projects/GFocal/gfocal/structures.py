"""What flows between the parts of a dense detector, flat over pyramid levels.

Shape legend, used throughout the package:

    N  images in the batch
    R  locations of all levels together (one anchor a location; levels in order, rows first)
    K  object classes
    C  channels that encode one side of a box (reg_max + 1 for a general distribution)
    M  foreground locations of the whole batch
    G  ground-truth boxes of the whole batch

Sides are ordered left, top, right, bottom. Boxes are absolute XYXY pixels of the network's input.
A *distance* is how far a side lies from the centre of its location, in **strides** of that level;
a *bin* is the support of a general distribution, in bin widths.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.structures import Boxes
from torch import Tensor

from .quality import joint_logits

__all__ = ["DenseAnchors", "DensePredictions", "DenseTargets"]


def to_device(values: Sequence, like: Tensor) -> Tensor:
    """Numbers as a tensor of the dtype and on the device of another, without waiting for a GPU.

    (``new_tensor`` copies to a GPU synchronously.)
    """
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


class DenseAnchors(NamedTuple):
    """The grid of anchors shared by every image of a batch.

    Attributes:
        boxes: (R, 4) anchor boxes, XYXY pixels.
        strides: (R,) stride of each location's level, pixels.
        level_shapes: [(H, W), ...] rows and columns of each level; sum of H * W is R.
    """

    boxes: Tensor
    strides: Tensor
    level_shapes: list[tuple[int, int]]

    @classmethod
    def from_levels(
        cls,
        anchors: Sequence[Boxes],
        level_shapes: Sequence[tuple[int, int]],
        strides: Sequence[float],
    ) -> "DenseAnchors":
        """Flatten what a Detectron2 anchor generator returns.

        Args:
            anchors: one ``Boxes`` a level, H * W boxes each, rows first.
            level_shapes: (H, W) of each level.
            strides: stride of each level, pixels. (They cannot be read off the anchors: a level of
                one location has no neighbour to measure from.)

        Raises:
            ValueError: if the three disagree on the number of levels, or a level does not have
                exactly one anchor a location.
        """
        shapes = [(int(h), int(w)) for h, w in level_shapes]
        if not len(anchors) == len(shapes) == len(strides):
            raise ValueError(
                f"got {len(anchors)} levels of anchors, {len(shapes)} of shapes and "
                f"{len(strides)} of strides; expected as many of each"
            )
        for level, (boxes, (h, w)) in enumerate(zip(anchors, shapes)):
            if len(boxes) != h * w:
                raise ValueError(
                    f"level {level} is {h} x {w} and has {len(boxes)} anchors; expected one anchor "
                    f"a location ({h * w}): give the anchor generator one size and one aspect ratio"
                )
        return cls(
            boxes=torch.cat([b.tensor for b in anchors]),
            strides=torch.cat(
                [b.tensor.new_full((len(b),), float(s)) for b, s in zip(anchors, strides)]
            ),
            level_shapes=shapes,
        )

    @property
    def centers(self) -> Tensor:
        """(R, 2) centres of the anchors, (x, y) pixels."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @property
    def level_sizes(self) -> list[int]:
        """Number of locations of each level."""
        return [h * w for h, w in self.level_shapes]

    def inside(self, image_sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Which locations lie on each image rather than on the padding of the batch.

        A location counts when the top-left corner of its cell, (column, row) * stride, does: the
        columns of a level that an image of width w reaches are the first ceil(w / stride).

        Args:
            image_sizes: N pairs (height, width), pixels.

        Returns:
            (N, R) bool.
        """
        corners = torch.cat([c - c[:1] for c in self.centers.split(self.level_sizes)])
        limits = to_device([(w, h) for h, w in image_sizes], corners)
        return (corners < limits[:, None]).all(dim=-1)


class DensePredictions(NamedTuple):
    """What a head says about every location of every image.

    Attributes:
        cls_logits: (N, R, K) class logits.
        box_logits: (N, R, 4, C) raw channels of the four sides, read by a box representation.
        quality_logits: (N, R, 1), or None for a head that has no quality predictor.
    """

    cls_logits: Tensor
    box_logits: Tensor
    quality_logits: Tensor | None = None

    def joint_logits(self, idxs: tuple | None = None) -> Tensor:
        """Logits of the score that training supervises and inference ranks by:
        sigmoid(cls) * sigmoid(quality), or the class score itself where there is no quality.

        Args:
            idxs: (image (M,), location (M,)) of the locations that matter.

        Returns:
            (M, K); without ``idxs`` (N, R, K).
        """
        logits = [x for x in (self.cls_logits, self.quality_logits) if x is not None]
        if idxs is not None:
            logits = [x[idxs] for x in logits]
        return joint_logits(*logits) if len(logits) == 2 else logits[0]


class DenseTargets(NamedTuple):
    """What each location should say.

    Attributes:
        labels: (N, R) int64: 0..K-1 a class, K background, -1 ignored (no part in any loss).
        boxes: (N, R, 4) matched ground-truth boxes, XYXY pixels; meaningful on foreground only.
        matched_idxs: (N, R) what the matcher answered: index into that image's boxes, -1
            background, -2 ignored. No loss reads it.
    """

    labels: Tensor
    boxes: Tensor
    matched_idxs: Tensor | None = None

    @classmethod
    def from_matches(
        cls,
        matched_idxs: Tensor,
        gt_boxes: Sequence[Boxes],
        gt_classes: Sequence[Tensor],
        num_classes: int,
    ) -> "DenseTargets":
        """Turn a matcher's answer into labels and boxes.

        Args:
            matched_idxs: (N, R) index into that image's boxes, -1 background, -2 ignored.
            gt_boxes: N ``Boxes``, XYXY pixels.
            gt_classes: N vectors of class indices in [0, num_classes).
            num_classes: K.
        """
        # Two rows stand after the boxes of all images, one for ignored and one for background,
        # which the codes -2 and -1 then index from the end: one gather serves the batch.
        counts = [len(b) for b in gt_boxes]
        firsts = to_device([0] + counts[:-1], matched_idxs).cumsum(0)
        codes = torch.where(matched_idxs >= 0, matched_idxs + firsts[:, None], matched_idxs)
        total = sum(counts)
        codes = torch.where(codes < 0, codes + total + 2, codes)
        all_boxes = torch.cat([b.tensor for b in gt_boxes])
        labels = torch.cat(
            [c.to(torch.int64) for c in gt_classes] + [to_device([-1, num_classes], matched_idxs)]
        )
        return cls(
            labels=labels[codes],
            boxes=torch.cat([all_boxes, all_boxes.new_zeros(2, 4)])[codes],
            matched_idxs=matched_idxs,
        )
