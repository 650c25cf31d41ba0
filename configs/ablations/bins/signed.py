"""20 bins from -2 to 17 strides, as PP-YOLOE has them for small objects."""

from gfocal.modeling.recipes import use

from ..gflv2 import dataloader, lr_multiplier, model, optimizer, train

use(model, box="signed_dfl")
