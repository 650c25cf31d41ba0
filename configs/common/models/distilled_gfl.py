"""GFLV2 that learns from a teacher by localization distillation (https://arxiv.org/abs/2102.12252):
LD in the main and in the valuable region, and KD of the classes.

The losses are in the published form and with the published weights, for two images a process.
"""

from detectron2.config import LazyCall as L

from gfocal.detectors import DistilledGFL
from gfocal.engine import FrozenTeacher
from gfocal.modeling.distillation import (
    ClassDistillation,
    DistillationCriterion,
    LocalizationDistillation,
)
from gfocal.modeling.teaching import ValuableRegion, main_region

from .gfl import model

model._target_ = DistilledGFL
model.teacher = L(FrozenTeacher)(config="???", weights="???")
model.criterion._target_ = DistillationCriterion
model.criterion.update(
    ld_loss=L(LocalizationDistillation)(
        region=main_region, weight=0.25, temperature=10.0, normalised=False
    ),
    ld_vlr_loss=L(LocalizationDistillation)(
        region=L(ValuableRegion)(topk=9, lower=0.25),
        weight=0.25,
        temperature=10.0,
        normalised=False,
    ),
    kd_loss=L(ClassDistillation)(weight=10.0, temperature=2.0, normalised=False),
    imitation_loss=None,
)
