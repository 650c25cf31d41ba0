"""From predictions and targets to a dict of losses.

The criterion gathers the foreground once, reduces the normalisers once, and hands every loss term
(terms.py) the same ``LossInputs``.

Reference: Generalized Focal Loss (https://arxiv.org/abs/2006.04388), Sec. 3, Eq. 8.
"""

import copy
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from ..process.rng import preserved_rng
from ..process.sums import each_on_its_own, sum_over_workers
from .contracts import Head, Measure
from .numerics import at_least_float32
from .quality import NoQuality, max_class_score, measured
from .structures import BACKGROUND, DenseAnchors, DensePredictions, DenseTargets, LossInputs

__all__ = ["GFLCriterion", "at_least_one_an_image", "computed", "one_more_an_image"]


def at_least_one_an_image(counts: Tensor) -> Tensor:
    """(N,) foreground locations of each image -> their sum. An image without any counts as one."""
    return counts.clamp(min=1).sum()


def one_more_an_image(counts: Tensor) -> Tensor:
    """(N,) foreground locations of each image -> their sum and the number of images: FoveaBox."""
    return (counts + 1).sum()


class GFLCriterion(nn.Module):
    """The losses of a batch, each normalised over all processes.

    ``loss_cls`` is divided by the number of foreground locations, as ``cls_divisor`` counts them;
    by default an image without any counts as one. The losses of boxes are divided by the summed
    ``box_weight`` of the foreground. Both divisors are means over processes. So n processes with b
    images each give the gradients of one process with n * b images.

    Args:
        cls_loss: term of ``loss_cls``.
        box_loss: term of ``loss_box_reg``.
        dist_loss: term of ``loss_dfl``, or None.
        quality_loss: term of ``loss_quality``, or None.
        box_weight: LossInputs -> (M,) weights of the boxes, detached. (When it is called,
            ``LossInputs`` has no weights and normalisers yet.)
        cls_divisor: numbers of foreground locations of the images (N,) -> the divisor of
            ``loss_cls`` and ``loss_quality``. None: the summed ``box_weight``, as TOOD has it. If
            the sum over all processes is below 1, it counts as 1.
    """

    def __init__(
        self,
        *,
        cls_loss: nn.Module,
        box_loss: nn.Module,
        dist_loss: nn.Module | None = None,
        quality_loss: nn.Module | None = None,
        box_weight: Measure = max_class_score,
        cls_divisor: Callable[[Tensor], Tensor] | None = at_least_one_an_image,
    ):
        super().__init__()
        self.cls_loss = cls_loss
        self.box_loss = box_loss
        self.dist_loss = dist_loss
        self.quality_loss = quality_loss
        self.box_weight = box_weight
        self.cls_divisor = cls_divisor

    @property
    def terms(self) -> dict[str, nn.Module]:
        """{name of its loss: term} of the slots that are filled."""
        terms = {
            "loss_cls": self.cls_loss,
            "loss_box_reg": self.box_loss,
            "loss_dfl": self.dist_loss,
            "loss_quality": self.quality_loss,
        }
        return {name: term for name, term in terms.items() if term is not None}

    def check_head(self, head: Head) -> None:
        """Asks the terms whether they fit a head, and tries them on a made-up batch. Terms that
        answer no scalar are refused at once.

        A trial cannot know everything: if it ends in another error than a ValueError, this is
        logged, and the first batch will tell.

        Args:
            head: with ``num_classes``, ``num_levels``, ``box_representation`` and perhaps
                ``quality_predictor``.

        Raises:
            ValueError: if a term needs what the head does not have, or answers no scalar, or a
                measure not one number a location.
        """
        for term in self.terms.values():
            check_head = getattr(term, "check_head", None)
            if check_head is not None:
                check_head(head)
        modules = [x for x in (self, head.box_representation) if isinstance(x, nn.Module)]
        tensors = (x for module in modules for x in [*module.parameters(), *module.buffers()])
        if any(x.device.type != "cpu" for x in tensors):
            return  # "meta" has no numbers to try
        with torch.device("cpu"), each_on_its_own(), EventStorage(), preserved_rng():
            try:
                trial = copy.deepcopy(self)  # as a term may have a running state
                trial(*_made_up(head))
            except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
                logging.getLogger(__name__).warning(
                    f"Trying the loss terms on a made-up batch failed ({type(error).__name__}: "
                    f"{error}). The first batch of the training will tell whether they work"
                )

    def forward(
        self, anchors: DenseAnchors, predictions: DensePredictions, targets: DenseTargets
    ) -> dict[str, Tensor]:
        """
        Returns:
            Scalars ``loss_cls``, ``loss_box_reg`` and, if their terms are given, ``loss_dfl`` and
            ``loss_quality``. Without any foreground the losses of boxes are 0, and every parameter
            still gets a (zero) gradient.

        Raises:
            ValueError: if a term answers anything but a scalar.
        """
        return computed(self.terms, self.loss_inputs(anchors, predictions, targets))

    def loss_inputs(
        self, anchors: DenseAnchors, predictions: DensePredictions, targets: DenseTargets
    ) -> LossInputs:
        """Gather and decode the foreground once, and reduce the two normalisers once."""
        predictions = predictions.with_tensors([at_least_float32(x) for x in predictions.tensors])
        num_classes = predictions.cls_logits.shape[-1]
        foreground = (targets.labels >= 0) & (targets.labels < num_classes)
        fg_idxs = foreground.nonzero(as_tuple=True)
        location_idxs = fg_idxs[1]
        box_logits = predictions.box_logits[fg_idxs]
        distances = predictions.distances_of(box_logits)
        target_boxes = targets.boxes[fg_idxs]
        inputs = LossInputs(
            anchors=anchors,
            predictions=predictions,
            targets=targets,
            fg_idxs=fg_idxs,
            fg_labels=targets.labels[fg_idxs],
            fg_joint_logits=predictions.joint_logits(fg_idxs),
            fg_box_logits=box_logits,
            fg_distances=distances,
            fg_boxes=anchors.decode(distances, location_idxs),
            fg_target_distances=anchors.encode(target_boxes, location_idxs),
            fg_target_boxes=target_boxes,
            box_weights=distances.new_empty(0),
            num_foreground=distances.new_empty(0),
            total_box_weight=distances.new_empty(0),
        )
        box_weights = measured(self.box_weight, inputs)
        total = box_weights.sum()
        counts = foreground.sum(dim=1)
        num_foreground = total if self.cls_divisor is None else self.cls_divisor(counts)
        sums, world_size = sum_over_workers(torch.stack([num_foreground.to(total.dtype), total]))
        num_foreground, total = sums
        return inputs._replace(
            box_weights=box_weights,
            num_foreground=num_foreground.clamp(min=1) / world_size,
            total_box_weight=(total / world_size).clamp(min=torch.finfo(total.dtype).tiny),
        )


def computed(terms: Mapping[str, nn.Module], *inputs: Any) -> dict[str, Tensor]:
    """{name: loss} of {name: term}.

    Raises:
        ValueError: if a term answers anything but a scalar.
    """
    losses = {name: term(*inputs) for name, term in terms.items()}
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.dim() > 0:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"the term of {name}, {type(terms[name]).__name__}, answered {got}; "
                "expected a scalar tensor, weighted and normalised"
            )
    return losses


def _made_up(head: Head) -> tuple[DenseAnchors, DensePredictions, DenseTargets]:
    """Two images of two locations a level. In the first all have a box, in the second one has."""
    levels, classes = head.num_levels, head.num_classes
    strides = torch.tensor([8.0 * 2**level for level in range(levels) for _ in range(2)])
    centers = torch.stack([strides * torch.tensor([0.0, 1.0] * levels), strides * 0], dim=1)
    reach = strides[:, None]
    anchors = DenseAnchors(
        boxes=torch.cat([centers - 4 * reach, centers + 4 * reach], dim=1),
        strides=strides,
        level_shapes=[(1, 2)] * levels,
    )
    rows = (2, 2 * levels)
    has_quality = not isinstance(getattr(head, "quality_predictor", None), NoQuality)
    predictions = DensePredictions(
        torch.zeros(*rows, classes),
        torch.zeros(*rows, 4, head.box_representation.num_channels),
        torch.zeros(*rows, 1) if has_quality else None,
        head.box_representation,
    )
    for logits in predictions.tensors:
        logits.requires_grad_()
    matched = torch.zeros(rows, dtype=torch.int64)
    matched[1, 1:] = BACKGROUND
    targets = DenseTargets(
        labels=torch.where(matched == 0, classes - 1, classes),
        boxes=torch.cat([centers - 1.5 * reach, centers + reach], dim=1).expand(*rows, 4),
        matched_idxs=matched,
        quality=torch.ones(rows),
    )
    return anchors, predictions, targets
