"""atss.py with FCOS's matching: locations are the centres of the cells."""

from gfocal.modeling.recipes import use

from .atss import data, dataloader, lr_multiplier, model, optimizer, train

use(model, matcher="fcos")
train.output_dir = "./output/reliability_fcos"
