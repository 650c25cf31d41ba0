"""SGD as the official code has it: weight decay on every parameter, normalisation layers too."""

from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

from gfocal.solver import SGD

optimizer = L(SGD)(
    params=L(get_default_optimizer_params)(),  # the trainer sets params.model
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
    max_grad_norm=None,
)
