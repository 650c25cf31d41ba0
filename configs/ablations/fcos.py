"""atss.py with FCOS's matching, whose locations are the centres of the cells."""

from gfocal.recipes import MATCHER, pick

from .atss import dataloader, lr_multiplier, model, optimizer, train

model.matcher = pick(MATCHER, "fcos", "matcher")["matcher"]
model.anchor_generator.offset = 0.5
