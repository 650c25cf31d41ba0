"""The student's own averaged weights as the teacher; the student is evaluated, not the average."""

from detectron2.config import LazyCall as L

from gfocal.engine import EMATeacher

from ...quick_start.shapes_distilled import dataloader, lr_multiplier, model, optimizer, train

model.teacher = L(EMATeacher)(start_iter=100)
train.ema_decay = 0.99
