"""SGD as the official code has it: weight decay on every parameter, normalisation layers too. And
the optimizers of SSD, CenterNet and CornerNet in MMDetection, and Detectron2's of transformers."""

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


def adamw(lr, weight_decay, no_decay):
    """Without weight decay on normalisation layers and on parameters of the names ``no_decay``."""
    return L(AdamW)(
        params=L(get_default_optimizer_params)(
            base_lr="${..lr}",
            weight_decay_norm=0.0,
            overrides={name: {"weight_decay": 0.0} for name in no_decay},
        ),
        lr=lr,
        betas=[0.9, 0.999],
        weight_decay=weight_decay,
        max_grad_norm=None,
    )


optimizer_adamw = adamw(lr=2e-4, weight_decay=0.05, no_decay=[])  # of 64 images
