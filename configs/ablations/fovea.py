"""The common base of FoveaBox's rows: ResNet-50, 1x."""

from ..common.models.fovea import model
from .atss import dataloader, lr_multiplier, optimizer, train
