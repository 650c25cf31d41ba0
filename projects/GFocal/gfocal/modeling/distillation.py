"""The losses of a student that learns from a teacher: localization distillation.

A term is a module ``forward(inputs: LossInputs, teaching: Teaching) -> scalar``, weighted and
normalised. If it needs something of the teacher, its ``check_teacher(student, teacher)`` may raise;
it is called with both detectors when the teacher is loaded.

Reference: Localization Distillation (https://arxiv.org/abs/2102.12252), Sec. 3.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..process.sums import sum_over_workers
from .contracts import Head
from .criterion import GFLCriterion, computed
from .losses import check_same_shape
from .numerics import at_least_float32, to_device
from .settings import NOT_NEGATIVE, POSITIVE, check_setting, check_settings
from .structures import DenseAnchors, DensePredictions, DenseTargets, LossInputs
from .teaching import DistillationRegion, Teaching, fine_grained, main_region

__all__ = [
    "ClassDistillation",
    "DistillationCriterion",
    "FeatureImitation",
    "LocalizationDistillation",
    "distillation_loss",
]


def distillation_loss(inputs: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """KL(p_T || p_S) of two softmaxes at a temperature (Sec. 3), times the temperature squared.

    As in the published code it is the mean over the bins, not the sum: the KL divided by C.

    Args:
        inputs: (..., C) logits of the student.
        targets: (..., C) logits of the teacher; no gradient flows into them.
        temperature: tau; above 1 it softens both.

    Returns:
        (...) in at least float32.

    Raises:
        ValueError: if the shapes differ.
    """
    check_same_shape(inputs, targets, "inputs", "targets")
    log_p = (at_least_float32(inputs) / temperature).log_softmax(dim=-1)
    log_t = (at_least_float32(targets.detach()) / temperature).log_softmax(dim=-1)
    return (log_t.exp() * (log_t - log_p)).mean(dim=-1) * temperature**2


class LocalizationDistillation(nn.Module):
    """LD (Sec. 3): the student's distributions of the four sides follow the teacher's.

    Args:
        weight: multiplies the loss.
        temperature: tau, 10 in the paper.
        region: where, with which weights: :func:`gfocal.modeling.teaching.main_region` or
            :class:`gfocal.modeling.teaching.ValuableRegion`.
        normalised: divide by the summed weights of the region over all processes, so that the loss
            is a mean and does not grow with the batch. False: the sum, as the published code has
            it; its weight .25 then counts as much as a mean of weight .25 * the summed weights, see
            docs/distillation.md.
    """

    def __init__(
        self,
        *,
        weight: float = 0.25,
        temperature: float = 10.0,
        region: DistillationRegion = main_region,
        normalised: bool = True,
    ):
        super().__init__()
        _check_numbers(weight, temperature)
        self.weight, self.temperature = weight, temperature
        self.region, self.normalised = region, normalised

    def check_head(self, head: Head) -> None:
        """Raises ValueError if the head's boxes have no distributions over bins."""
        if not hasattr(head.box_representation, "bins"):
            raise ValueError(
                "LocalizationDistillation needs a box representation with bins, which "
                f"{type(head.box_representation).__name__} does not have; expected e.g. "
                "GeneralDistribution"
            )

    def check_teacher(self, student: Any, teacher: Any) -> None:
        """Raises ValueError if the teacher's bins are not the student's."""
        bins = (getattr(x.head.box_representation, "bins", None) for x in (student, teacher))
        own, others = ([] if x is None else x.tolist() for x in bins)
        if own != others:
            raise ValueError(
                f"the teacher has the bins {others}, the student {own}, in strides; expected the "
                "same, from the box representations of their heads"
            )

    def forward(self, inputs: LossInputs, teaching: Teaching) -> Tensor:
        idxs, weights, total = self.region(inputs, teaching)
        loss = distillation_loss(
            inputs.predictions.box_logits[idxs],
            teaching.predictions.box_logits[idxs],
            self.temperature,
        ).mean(dim=-1)
        if self.normalised:
            if total is None:
                total = _mean_over_workers(weights.sum())
            weights = weights / total  # first, as in LossInputs.weighted_mean
        return self.weight * (loss * weights).sum()


class ClassDistillation(nn.Module):
    """KD of the classes on the foreground: a softmax over the K class logits, without a quality.

    Args:
        weight: multiplies the loss, 10 in the published code.
        temperature: tau, 2 there.
        normalised: the mean over the foreground of all processes. False: the sum over the levels of
            the mean over a level's foreground in this process, as the published code has it.
    """

    compares_classes = True  # so they must have the same order

    def __init__(self, *, weight: float = 10.0, temperature: float = 2.0, normalised: bool = True):
        super().__init__()
        _check_numbers(weight, temperature)
        self.weight, self.temperature, self.normalised = weight, temperature, normalised

    def check_head(self, head: Head) -> None:
        """Raises ValueError if there is one class: a softmax over it is 1 for every logit."""
        if head.num_classes < 2:
            raise ValueError(
                "ClassDistillation compares classes, and the head has 1; expected several, or the "
                "criterion without kd_loss"
            )

    def check_teacher(self, student: Any, teacher: Any) -> None:
        """Raises ValueError if the teacher has other classes."""
        if teacher.num_classes != student.num_classes:
            raise ValueError(
                f"the teacher has {teacher.num_classes} classes, the student "
                f"{student.num_classes}; expected as many"
            )

    def forward(self, inputs: LossInputs, teaching: Teaching) -> Tensor:
        own, others = (
            x.cls_logits[inputs.fg_idxs] for x in (inputs.predictions, teaching.predictions)
        )
        loss = distillation_loss(own, others, self.temperature)
        if self.normalised:
            return self.weight * loss.sum() / _count_over_workers(loss)
        return self.weight * (loss / _count_of_level(inputs.anchors, inputs.fg_idxs)).sum()


class FeatureImitation(nn.Module):
    """The student's maps follow the teacher's near objects: the mean squared error over the
    channels, in the region of :func:`gfocal.modeling.teaching.fine_grained`.

    Args:
        weight: multiplies the loss, 2 in the published code of LD.
        normalised: the mean over the region's locations in all processes. False: the sum over the
            levels that have a foreground of the mean over a level's locations in this process, as
            that code has it.
    """

    def __init__(self, *, weight: float = 2.0, normalised: bool = True):
        super().__init__()
        check_settings(NOT_NEGATIVE, weight=weight)
        self.weight, self.normalised = weight, normalised

    def check_teacher(self, student: Any, teacher: Any) -> None:
        """Raises ValueError if the teacher's maps have another number of channels."""
        own, others = (
            [x.backbone.output_shape()[name].channels for name in x.head_in_features]
            for x in (student, teacher)
        )
        if own != others:
            raise ValueError(
                f"the teacher's maps have {others} channels, the student's {own}; expected the "
                "same, or the criterion without imitation_loss"
            )

    def forward(self, inputs: LossInputs, teaching: Teaching) -> Tensor:
        anchors, labels = inputs.anchors, inputs.targets.labels
        region = fine_grained(anchors, teaching.truth, labels >= 0)
        losses = [
            _squared_distance(_at(own, inside), _at(others, inside).detach())
            for own, others, inside in zip(
                teaching.own_features,
                teaching.features,
                region.split(anchors.level_sizes, dim=1),
            )
        ]
        if self.normalised:
            loss = torch.cat(losses)
            return self.weight * loss.sum() / _count_over_workers(loss)
        foreground = set(_levels_of(anchors, inputs.fg_idxs[1]).tolist())
        means = [x.sum() / max(len(x), 1) * (i in foreground) for i, x in enumerate(losses)]
        return self.weight * torch.stack(means).sum()


class DistillationCriterion(GFLCriterion):
    """:class:`GFLCriterion` with the losses of a student that learns from a teacher.

    Args:
        ld_loss: term of ``loss_ld``, localization distillation in the main region, or None.
        ld_vlr_loss: term of ``loss_ld_vlr``, the same in the valuable region, or None.
        kd_loss: term of ``loss_kd``, or None.
        imitation_loss: term of ``loss_imitation``, or None.
        **arguments: those of :class:`GFLCriterion`.

    Raises:
        ValueError: all four are None.
    """

    def __init__(
        self,
        *,
        ld_loss: nn.Module | None = None,
        ld_vlr_loss: nn.Module | None = None,
        kd_loss: nn.Module | None = None,
        imitation_loss: nn.Module | None = None,
        **arguments: Any,
    ):
        super().__init__(**arguments)
        self.ld_loss = ld_loss
        self.ld_vlr_loss = ld_vlr_loss
        self.kd_loss = kd_loss
        self.imitation_loss = imitation_loss
        if not self.lessons:
            raise ValueError(
                "ld_loss, ld_vlr_loss, kd_loss and imitation_loss are None; expected one at least, "
                "or a GFLCriterion"
            )

    @property
    def lessons(self) -> dict[str, nn.Module]:
        """{name of its loss: term} of the filled slots that need a teacher."""
        lessons = {
            "loss_ld": self.ld_loss,
            "loss_ld_vlr": self.ld_vlr_loss,
            "loss_kd": self.kd_loss,
            "loss_imitation": self.imitation_loss,
        }
        return {name: term for name, term in lessons.items() if term is not None}

    def check_head(self, head: Head) -> None:
        for term in self.lessons.values():
            check_head: Any = getattr(term, "check_head", None)
            if check_head is not None:
                check_head(head)
        super().check_head(head)

    def check_teacher(self, student: Any, teacher: Any) -> None:
        """Asks the terms whether a teacher fits a student.

        Args:
            student, teacher: detectors like :class:`gfocal.detectors.GFL`.

        Raises:
            ValueError: it does not; the message has the values of both.
        """
        for term in self.lessons.values():
            check_teacher: Any = getattr(term, "check_teacher", None)
            if check_teacher is not None:
                check_teacher(student, teacher)

    def forward(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        targets: DenseTargets,
        teaching: Teaching | None = None,
    ) -> dict[str, Tensor]:
        """
        Args:
            anchors, predictions, targets: of the batch.
            teaching: None: there is no teacher yet, and its losses are 0.

        Returns:
            The losses of :class:`GFLCriterion` and those of the teacher.

        Raises:
            ValueError: if a term answers anything but a scalar.
        """
        inputs = self.loss_inputs(anchors, predictions, targets)
        losses = computed(self.terms, inputs)
        if teaching is None:
            zero = inputs.total_box_weight.new_zeros(())
            return {**losses, **dict.fromkeys(self.lessons, zero)}
        return {**losses, **computed(self.lessons, inputs, teaching)}


def _check_numbers(weight: float, temperature: float) -> None:
    check_settings(NOT_NEGATIVE, weight=weight)
    check_setting("temperature", temperature, POSITIVE)


def _mean_over_workers(value: Tensor) -> Tensor:
    """A divisor: the mean over processes, positive."""
    total, count = sum_over_workers(value)
    return (total / count).clamp(min=torch.finfo(value.dtype).tiny)


def _count_over_workers(losses: Tensor) -> Tensor:
    """How many (V,) losses there are: the mean over processes, positive."""
    return _mean_over_workers(losses.new_full((), float(len(losses))))


def _levels_of(anchors: DenseAnchors, location_idxs: Tensor) -> Tensor:
    """(V,) the level of each location."""
    ends = to_device(anchors.level_sizes, location_idxs).cumsum(0)
    return torch.bucketize(location_idxs, ends, right=True)


def _count_of_level(anchors: DenseAnchors, idxs: tuple) -> Tensor:
    """(V,) for each location, how many of them are of its level."""
    levels = _levels_of(anchors, idxs[1])
    return levels.bincount(minlength=len(anchors.level_sizes))[levels]


def _squared_distance(own: Tensor, others: Tensor) -> Tensor:
    """(V, F), (V, F) -> (V,) the mean over the channels."""
    own = at_least_float32(own)
    return (own - others.to(own.dtype)).square().mean(dim=-1)


def _at(features: Tensor, inside: Tensor) -> Tensor:
    """(V, F) of a level's map (N, F, H, W), where ``inside`` (N, H * W) is True."""
    images, cells = inside.nonzero(as_tuple=True)
    width = features.shape[-1]
    return features[images, :, cells // width, cells % width]
