"""A larger teacher: quick_start/shapes_teacher.py."""

from ...quick_start.shapes_distilled import dataloader, lr_multiplier, model, optimizer, train
