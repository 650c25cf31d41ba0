"""Learning rate: linear warm-up, then two steps down by a factor of 10.

A schedule is relative to train.max_iter: with another number of iterations, warm-up and steps move
in proportion.
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler


def step_schedule(steps, max_iter, warmup_iters):
    """``steps``, ``max_iter`` and ``warmup_iters`` in iterations."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**k for k in range(len(steps) + 1)],
            milestones=[*steps, max_iter],
        ),
        warmup_length=warmup_iters / max_iter,
        warmup_factor=0.001,
    )


lr_multiplier_1x = step_schedule(steps=[60000, 80000], max_iter=90000, warmup_iters=500)
lr_multiplier_2x = step_schedule(steps=[120000, 165000], max_iter=180000, warmup_iters=500)
