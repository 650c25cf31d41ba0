import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from torch import nn

from gfocal.engine import AutocastTrainer
from gfocal.engine.steps import step_class


def test_the_step_follows_precision_and_device():
    model = nn.Linear(1, 1)
    assert step_class(model, amp=False) is SimpleTrainer
    assert step_class(model, amp=True) is AutocastTrainer
    with torch.device("meta"):
        elsewhere = nn.Linear(1, 1)
    assert step_class(elsewhere, amp=True) is AMPTrainer
    assert step_class(elsewhere, amp=False) is SimpleTrainer
