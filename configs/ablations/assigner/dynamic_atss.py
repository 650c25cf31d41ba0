"""DDOD's ATSS, which counts the predictions of the candidates."""

from gfocal.modeling.recipes import use

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

use(model, matcher="dynamic_atss")
