"""YOLOX's SimOTA."""

from gfocal.modeling.recipes import use

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

use(model, matcher="simota")
