"""GFL that learns from a teacher: knowledge distillation."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol, cast

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from .._padding import Padding
from ..backbones import DeformConv2d
from ..modeling.numerics import at_least_float32
from ..modeling.structures import DensePredictions
from ..modeling.teaching import Teaching
from ..modeling.yacs_distillation import distilled_arguments
from ..process.sums import is_counting
from .gfl import GFL

__all__ = ["DistilledGFL", "Teacher"]


class Teacher(Protocol):
    """Where a student's teacher comes from: :mod:`gfocal.engine.teachers`. It is no module, so no
    part of the student: not in its state dict, its optimizer, nor in DistributedDataParallel. A
    copy of the student has the same one."""

    def prepare(self, student: Any, average: Any, class_names: Sequence[str] = ()) -> None:
        """Called before a training, with the hook that averages the weights, or None, and the names
        of the student's classes if a loss compares them with the teacher's."""

    def __call__(self, student: Any) -> Any:
        """The detector to learn from, in eval mode on the student's device; None: not yet. When it
        is loaded, ``student.check_teacher(it)`` is called."""


@META_ARCH_REGISTRY.register()
class DistilledGFL(GFL):
    """:class:`GFL` whose losses have a part that a teacher gives. In inference it is GFL, and so is
    its state dict.

    The teacher sees the same batch, normalised and padded by the student, in the same precision. It
    runs once a step, without gradients.

    Args:
        teacher: a :class:`gfocal.engine.FrozenTeacher` or :class:`gfocal.engine.EMATeacher`. A
            training needs one; inference and exports do not.
        **arguments: those of :class:`GFL`. The criterion is a
            :class:`gfocal.modeling.distillation.DistillationCriterion`.

    Raises:
        TypeError: the criterion is another one, or the teacher a module.
        ValueError: see :class:`GFL`.
    """

    yacs_arguments = staticmethod(partial(distilled_arguments, deform_conv=DeformConv2d))

    @configurable
    def __init__(self, *, teacher: Teacher | None = None, **arguments: Any):
        super().__init__(**arguments)
        if not hasattr(self.criterion, "check_teacher"):
            raise TypeError(
                f"the criterion is a {type(self.criterion).__name__}, which learns from no "
                "teacher; expected a DistillationCriterion"
            )
        if isinstance(teacher, nn.Module):  # it would be trained and saved with the student
            raise TypeError(
                f"the teacher is a {type(teacher).__name__}, a module, which would become a part "
                "of the student; expected a FrozenTeacher or an EMATeacher"
            )
        self.teacher = teacher

    def prepare_training(self, average: Any, class_names: Sequence[str] = ()) -> None:
        """Loads the teacher. A trainer calls it before a training.

        Args:
            average: the hook that averages the weights, or None.
            class_names: of the training's datasets; () if they are not known.

        Raises:
            FileNotFoundError: a file of the teacher is not there.
            TypeError, ValueError: there is no teacher, or it does not fit.
        """
        terms = cast("Any", self.criterion).lessons.values()
        compared = any(getattr(term, "compares_classes", False) for term in terms)
        self._teacher().prepare(self, average, class_names if compared else ())

    def check_teacher(self, teacher: Any) -> None:
        """
        Raises:
            TypeError: the teacher is no GFL.
            ValueError: its images or locations are not the student's, or a loss term needs what it
                does not have; the message has the values of both.
        """
        if not isinstance(teacher, GFL):
            raise TypeError(f"the teacher is a {type(teacher).__name__}; expected a GFL")
        own, others = _inputs_of(self), _inputs_of(teacher)
        for name in own:
            if own[name] != others[name]:
                raise ValueError(
                    f"the teacher's {name} is {others[name]}, the student's {own[name]}; expected "
                    "the same: both see one batch"
                )
        cast("Any", self.criterion).check_teacher(self, teacher)

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """
        Args:
            batched_inputs: see :meth:`GFL.forward`.

        Returns:
            In training the losses of :class:`GFL` and those of the teacher's terms: ``loss_ld``,
            ``loss_ld_vlr``, ``loss_kd``, ``loss_imitation``. In inference what GFL answers.

        Raises:
            ValueError: in training, there is no teacher; or see :meth:`GFL.forward`.
        """
        if not self.training:
            return super().forward(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        # The teacher first: its memory is free again when the student's activations need it.
        lesson = self._lesson(images.tensor)
        features = self.features(images.tensor)
        anchors, predictions = self.anchors(features), self.predictions(features)
        with torch.autocast(images.tensor.device.type, enabled=False):
            truth = self.ground_truth(batched_inputs, images.image_sizes)
            if is_counting():  # the sums over a batch do not depend on what the teacher says
                lesson = predictions.detach(), [x.detach() for x in features]
            teaching = None
            if lesson is not None:
                said, seen = lesson
                dtype = at_least_float32(predictions.cls_logits).dtype
                said = said.with_tensors([x.to(dtype) for x in said.tensors])
                where = truth if self.ignore_padding else truth._replace(image_sizes=None)
                teaching = Teaching(said, seen, features, where)
            return self.losses(anchors, predictions, truth, batched_inputs, teaching=teaching)

    def _teacher(self) -> Teacher:
        if self.teacher is None:
            raise ValueError(
                "this DistilledGFL has no teacher; a training needs one, e.g. model.teacher = "
                "L(FrozenTeacher)(weights=...)"
            )
        return self.teacher

    @torch.no_grad()
    def _lesson(self, images: Tensor) -> tuple[DensePredictions, Sequence[Tensor]] | None:
        """The teacher's predictions and its maps."""
        teacher = self._teacher()(self) if not is_counting() else None
        if teacher is None:
            return None
        features = teacher.features(images)
        return teacher.predictions(features), features


def _inputs_of(detector: GFL) -> dict[str, Any]:
    """What student and teacher must have in common."""
    shapes = [(2, 2) for _ in detector.strides]
    maps = [detector.pixel_mean.new_zeros(1, 1, *shape) for shape in shapes]
    return {
        "pixel_mean": detector.pixel_mean.flatten().tolist(),
        "pixel_std": detector.pixel_std.flatten().tolist(),
        "input_format": detector.input_format,
        "padding": Padding.of(detector.backbone),
        "strides": detector.strides,
        "place of a location in its cell": detector.anchors(maps).centers[0].tolist(),
    }
