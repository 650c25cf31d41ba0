"""A tiny student, whose teacher is another tiny GFL in memory."""

import torch

from gfocal.detectors import DistilledGFL
from gfocal.modeling.distillation import (
    ClassDistillation,
    DistillationCriterion,
    FeatureImitation,
    LocalizationDistillation,
)
from gfocal.modeling.teaching import ValuableRegion
from gfocal.modeling.terms import DistributionFocalLoss, GIoULoss, QualityFocalLoss

from .tiny import make_gfl


class InMemory:
    """A teacher that is a module already."""

    def __init__(self, model):
        self.model = model.eval()
        self.calls = 0

    def __deepcopy__(self, memo):
        return self

    def prepare(self, student, average, class_names=()):
        student.check_teacher(self.model)

    def __call__(self, student):
        self.calls += 1
        return self.model


def make_criterion(**changes):
    """With all four losses of a teacher."""
    lessons = {
        "ld_loss": LocalizationDistillation(weight=10.0),
        "ld_vlr_loss": LocalizationDistillation(weight=5.0, region=ValuableRegion()),
        "kd_loss": ClassDistillation(),
        "imitation_loss": FeatureImitation(),
    }
    terms = {
        "cls_loss": QualityFocalLoss(),
        "box_loss": GIoULoss(),
        "dist_loss": DistributionFocalLoss(),
    }
    return DistillationCriterion(**{**terms, **lessons, **changes})


def make_teacher(num_classes=3, **kwargs):
    """A GFL with other weights than the next one, and sharper distributions than an untrained one,
    in float64: what it says of an image does not depend on the others."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        teacher = make_gfl(num_classes, **kwargs).double()
        for layer in (teacher.head.cls_logits, teacher.head.box_logits):
            layer.weight.data *= 30
    return teacher


def make_distilled(num_classes=3, **kwargs):
    changes = {"kd_loss": None} if num_classes == 1 else {}  # it compares classes
    criterion = make_criterion(**changes)
    defaults = {"teacher": InMemory(make_teacher(num_classes)), "criterion": criterion}
    return make_gfl(num_classes, make=DistilledGFL, **{**defaults, **kwargs})
