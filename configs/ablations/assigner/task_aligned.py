"""TOOD's task-aligned assignment: ATSS for the first third, as 4 of its 12 epochs."""

from detectron2.config import LazyCall as L

from gfocal.modeling.recipes import use
from gfocal.solver import share_of

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

use(model, matcher="task_aligned")
model.matcher.warmup_iters = L(share_of)(iterations="${train.max_iter}", share=1 / 3)
