"""17 bins: 0, and from a quarter of a stride to 64 in equal ratios."""

from gfocal.modeling.recipes import use

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

use(model, box="geometric_dfl")
