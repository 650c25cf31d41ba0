"""Learning rate: linear warm-up, then steps down by a factor of 10, or a cosine.

A schedule is relative to train.max_iter: with another number of iterations, warm-up and steps move
in proportion.
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler

# Images of coco_2017_train with a box: those without one are left out.
COCO_IMAGES = 117266


def step_schedule(steps, max_iter, warmup_iters, warmup_factor=0.001):
    """``steps``, ``max_iter`` and ``warmup_iters`` in iterations."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**k for k in range(len(steps) + 1)],
            milestones=[*steps, max_iter],
        ),
        warmup_length=warmup_iters / max_iter,
        warmup_factor=warmup_factor,
    )


def iterations(epochs, batch_size):
    """Of so many epochs of COCO, rounded."""
    return round(epochs * COCO_IMAGES / batch_size)


lr_multiplier_1x = step_schedule(steps=[60000, 80000], max_iter=90000, warmup_iters=500)
lr_multiplier_2x = step_schedule(steps=[120000, 165000], max_iter=180000, warmup_iters=500)

# Detectron2's for transformers: 3x of 16 images a batch, 36 and 100 epochs of 64.
lr_multiplier_3x = step_schedule(steps=[210000, 250000], max_iter=270000, warmup_iters=1000)
lr_multiplier_36ep = step_schedule(steps=[52500, 62500], max_iter=67500, warmup_iters=250)
lr_multiplier_100ep = step_schedule(steps=[163889, 177546], max_iter=184375, warmup_iters=250)

# MMDetection repeats the dataset: 24 epochs of 5 each are 120.
max_iter_ssd = iterations(24 * 5, batch_size=64)
lr_multiplier_ssd = step_schedule(
    steps=[iterations(epoch * 5, batch_size=64) for epoch in (16, 22)],
    max_iter=max_iter_ssd,
    warmup_iters=500,
)

max_iter_centernet = iterations(28 * 5, batch_size=128)
lr_multiplier_centernet = step_schedule(
    steps=[iterations(epoch * 5, batch_size=128) for epoch in (18, 24)],
    max_iter=max_iter_centernet,
    warmup_iters=1000,
)

max_iter_cornernet = iterations(210, batch_size=50)
lr_multiplier_cornernet = step_schedule(
    steps=[iterations(180, batch_size=50)],
    max_iter=max_iter_cornernet,
    warmup_iters=500,
    warmup_factor=1 / 3,
)

max_iter_100ep = iterations(100, batch_size=64)
lr_multiplier_100ep_cosine = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_length=1000 / max_iter_100ep,
    warmup_factor=0.001,
)
# Detectron2's steps are at 8/9 and 26/27 of the training.
lr_multiplier_100ep_steps = step_schedule(
    steps=[round(max_iter_100ep * part) for part in (8 / 9, 26 / 27)],
    max_iter=max_iter_100ep,
    warmup_iters=1000,
)
