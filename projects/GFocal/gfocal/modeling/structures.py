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
a *bin* is a point of the support of a general distribution.

    anchors, predictions, truth -> matcher -> Matches -> DenseTargets -> LossInputs -> losses
    anchors, predictions -> post-processing -> Instances
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.structures import Boxes
from torch import Tensor

from .boxes import boxes_to_distances, distances_to_boxes
from .numerics import joint_logits, to_device
from .representations import BoxRepresentation

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "DenseAnchors",
    "DensePredictions",
    "DenseTargets",
    "GroundTruth",
    "LossInputs",
    "Matches",
]

# A matcher's answers for locations without a box.
BACKGROUND = -1
IGNORED = -2


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
            strides: stride of each level, pixels. (Anchors do not tell it: a level with one
                location has no neighbour to measure from.)

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

    def decode(self, distances: Tensor, idxs: Tensor | slice = slice(None)) -> Tensor:
        """Boxes of distances, as seen from locations. The inverse of :meth:`encode`.

        Args:
            distances: (M, 4) left, top, right, bottom, in strides of each location's level.
            idxs: (M,) locations in 0..R-1. By default all, and ``distances`` are (..., R, 4).

        Returns:
            Boxes of the shape of ``distances``, XYXY pixels.
        """
        return distances_to_boxes(self.centers[idxs], distances * self.strides[idxs, None])

    def encode(self, boxes: Tensor, idxs: Tensor | slice = slice(None)) -> Tensor:
        """Distances of boxes' sides, as seen from locations. The inverse of :meth:`decode`.

        Args:
            boxes: (M, 4) XYXY pixels.
            idxs: (M,) locations in 0..R-1. By default all, and ``boxes`` are (..., R, 4).

        Returns:
            Left, top, right, bottom of the shape of ``boxes``, in strides; negative where a centre
            is outside.
        """
        return boxes_to_distances(self.centers[idxs], boxes) / self.strides[idxs, None]

    def inside(self, image_sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Which locations lie on each image rather than on the padding of the batch.

        A location lies on an image if the top-left corner of its cell does, that is
        (column, row) * stride. An image of width w reaches the first ceil(w / stride) columns.

        Args:
            image_sizes: N pairs (height, width), pixels.

        Returns:
            (N, R) bool.
        """
        corners = torch.cat([c - c[:1] for c in self.centers.split(self.level_sizes)])
        limits = to_device([(w, h) for h, w in image_sizes], corners)
        return (corners < limits[:, None]).all(dim=-1)


class GroundTruth(NamedTuple):
    """The objects of the images of a batch.

    Attributes:
        boxes: N ``Boxes``, XYXY pixels; an image may have none.
        classes: N vectors of class indices in [0, K), one for each box.
        image_sizes: N (height, width), pixels: the part of the batch's grid that belongs to each
            image. Locations beyond it are padding, and ignored. None: there is no padding.
        ignore_regions: N ``Boxes`` or None. Inside them there is no background, as in a crowd. ()
            if no image has any.
    """

    boxes: Sequence[Boxes]
    classes: Sequence[Tensor]
    image_sizes: Sequence[tuple[int, int]] | None = None
    ignore_regions: Sequence[Boxes | None] = ()

    @property
    def counts(self) -> list[int]:
        """Number of boxes of each image."""
        return [len(boxes) for boxes in self.boxes]


class Matches(NamedTuple):
    """What a matcher answers.

    Attributes:
        idxs: (N, R) int64: index into that image's boxes, ``BACKGROUND`` (-1), or ``IGNORED`` (-2)
            for locations that take no part in training.
        quality: (N, R) in [0, 1], a soft label of the matched location's class, or None. The
            measure :func:`gfocal.modeling.quality.matched_quality` reads it.
    """

    idxs: Tensor
    quality: Tensor | None = None


class DensePredictions(NamedTuple):
    """What a head says about every location of every image.

    Attributes:
        cls_logits: (N, R, K) class logits.
        box_logits: (N, R, 4, C) raw channels of the four sides.
        quality_logits: (N, R, 1), or None for a head that has no quality predictor.
        box_representation: reads ``box_logits``, see representations.py.
    """

    cls_logits: Tensor
    box_logits: Tensor
    quality_logits: Tensor | None = None
    box_representation: BoxRepresentation | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Class logits, box logits and, if there are any, quality logits."""
        tensors = (self.cls_logits, self.box_logits, self.quality_logits)
        return tuple(x for x in tensors if x is not None)

    def with_tensors(self, tensors: Sequence[Tensor]) -> "DensePredictions":
        """These predictions with other logits, in the order of :attr:`tensors`."""
        cls_logits, box_logits, *quality = tensors
        return DensePredictions(
            cls_logits, box_logits, quality[0] if quality else None, self.box_representation
        )

    def detach(self) -> "DensePredictions":
        """The same numbers, without gradients."""
        return self.with_tensors([x.detach() for x in self.tensors])

    def first(self) -> "DensePredictions":
        """Those of the first image."""
        return self.with_tensors([x[:1] for x in self.tensors])

    def joint_logits(self, idxs: tuple | None = None) -> Tensor:
        """Logits of the score. Training supervises this score, and inference ranks by it.

        It is sigmoid(cls) * sigmoid(quality), or sigmoid(cls) if there is no quality.

        Args:
            idxs: (image (M,), location (M,)) of some locations; by default all.

        Returns:
            (M, K); without ``idxs`` (N, R, K).
        """
        logits = [x for x in (self.cls_logits, self.quality_logits) if x is not None]
        if idxs is not None:
            logits = [x[idxs] for x in logits]
        return joint_logits(*logits) if len(logits) == 2 else logits[0]

    def distances_of(self, box_logits: Tensor) -> Tensor:
        """Distances that the box representation reads from box logits.

        Args:
            box_logits: (..., 4, C), some of these predictions' box logits.

        Returns:
            (..., 4) strides.

        Raises:
            ValueError: if the head has not said how its channels are read.
        """
        if self.box_representation is None:
            raise ValueError(
                "the predictions have no box_representation; expected a head that answers "
                "DensePredictions(cls_logits, box_logits, quality_logits, box_representation)"
            )
        return self.box_representation(box_logits)


class DenseTargets(NamedTuple):
    """The labels of all locations.

    Attributes:
        labels: (N, R) int64: 0..K-1 a class, K background, -1 ignored (no part in any loss).
        boxes: (N, R, 4) matched ground-truth boxes, XYXY pixels; meaningful on foreground only.
        matched_idxs: (N, R) the matcher's answer: index into that image's boxes, -1 background, -2
            ignored. No loss reads it.
        quality: (N, R) the matcher's soft label, or None.
    """

    labels: Tensor
    boxes: Tensor
    matched_idxs: Tensor | None = None
    quality: Tensor | None = None

    @classmethod
    def from_matches(cls, matches: Matches, truth: GroundTruth, num_classes: int) -> "DenseTargets":
        """Turn a matcher's answer, already checked, into labels and boxes.

        Args:
            matches: of the batch.
            truth: of the batch.
            num_classes: K.
        """
        # After the boxes of all images stand two more rows, one for ignored and one for background.
        # The codes -2 and -1 index them from the end. So one gather serves the batch.
        idxs, counts = matches.idxs, truth.counts
        firsts = to_device([0] + counts[:-1], idxs).cumsum(0)
        codes = torch.where(idxs >= 0, idxs + firsts[:, None], idxs)
        codes = torch.where(codes < 0, codes + sum(counts) + 2, codes)
        all_boxes = torch.cat([b.tensor for b in truth.boxes])
        labels = torch.cat(
            [c.to(torch.int64) for c in truth.classes] + [to_device([-1, num_classes], idxs)]
        )
        return cls(
            labels=labels[codes],
            boxes=torch.cat([all_boxes, all_boxes.new_zeros(2, 4)])[codes],
            matched_idxs=idxs,
            quality=matches.quality,
        )


class LossInputs(NamedTuple):
    """The input of every loss term: the batch, and its M foreground locations, gathered once.

    Attributes:
        anchors: of the batch.
        predictions: of the batch, in at least float32.
        targets: of the batch.
        fg_idxs: (image (M,), location (M,)) of the foreground.
        fg_labels: (M,) its classes.
        fg_joint_logits: (M, K) logits of the class (and quality) score.
        fg_box_logits: (M, 4, C).
        fg_distances: (M, 4) predicted distances, strides.
        fg_boxes: (M, 4) predicted boxes, XYXY pixels; not clipped to the image.
        fg_target_distances: (M, 4) distances of the ground truth, strides; not clipped.
        fg_target_boxes: (M, 4) ground truth, XYXY pixels.
        box_weights: (M,) weight of each foreground box in the losses of boxes; detached.
        num_foreground: () the divisor of loss_cls.
        total_box_weight: () the divisor of the losses of boxes.
    """

    anchors: DenseAnchors
    predictions: DensePredictions
    targets: DenseTargets
    fg_idxs: tuple
    fg_labels: Tensor
    fg_joint_logits: Tensor
    fg_box_logits: Tensor
    fg_distances: Tensor
    fg_boxes: Tensor
    fg_target_distances: Tensor
    fg_target_boxes: Tensor
    box_weights: Tensor
    num_foreground: Tensor
    total_box_weight: Tensor

    @property
    def fg_rows(self) -> Tensor:
        """(M,) places of the foreground among the N * R locations of the batch."""
        image_idxs, location_idxs = self.fg_idxs
        return image_idxs * self.targets.labels.shape[1] + location_idxs

    def weighted_mean(self, losses: Tensor) -> Tensor:
        """The mean of (M,) losses by the weights of the boxes."""
        # The weights are divided first. If all are (almost) 0, then 1 / total times the factor of a
        # gradient scaler would be infinite.
        return (losses * (self.box_weights / self.total_box_weight)).sum()
