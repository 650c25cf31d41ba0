"""DGQP without QFL: trained as an IoU branch, beside a focal loss of the classes."""

from gfocal.modeling.recipes import use

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

use(model, quality="dgqp_branch")
