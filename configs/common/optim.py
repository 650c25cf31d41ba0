"""SGD as the official code has it: weight decay on every parameter, normalisation layers too. The
optimizers of SSD, CenterNet and CornerNet in MMDetection. And AdamW for long trainings."""

from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

from gfocal.solver import SGD, Adam, AdamW


def _sgd(lr, weight_decay=1e-4, max_grad_norm=None):
    return L(SGD)(
        params=L(get_default_optimizer_params)(),  # the trainer sets params.model
        lr=lr,
        momentum=0.9,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
    )


optimizer = _sgd(lr=0.01)
optimizer_ssd = _sgd(lr=2e-3, weight_decay=5e-4)  # of 64 images a batch
optimizer_centernet = _sgd(lr=0.02, max_grad_norm=35.0)  # of 128
optimizer_cornernet = L(Adam)(  # of 50
    params=L(get_default_optimizer_params)(), lr=5e-4, max_grad_norm=35.0
)
optimizer_adamw = L(AdamW)(  # of 64
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),
    lr=2e-4,
    weight_decay=0.05,
    max_grad_norm=None,
)
