from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

from gfocal.solver import Adam

from ..common.data_cornernet import dataloader
from ..common.models.cornernet import model
from ..common.schedule import lr_multiplier_cornernet as lr_multiplier
from ..common.schedule import max_iter_cornernet
from ..common.train import train

optimizer = L(Adam)(
    params=L(get_default_optimizer_params)(),
    lr=5e-4,
    max_grad_norm=35.0,
)
train.max_iter = max_iter_cornernet
