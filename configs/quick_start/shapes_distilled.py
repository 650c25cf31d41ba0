"""shapes_gflv2.py, which learns from a teacher. Train that first:

    gfocal train --config-file quick_start/shapes_teacher.py
    gfocal train --config-file quick_start/shapes_distilled.py

Another one: model.teacher.config=... model.teacher.weights=...
"""

from ..common.models.distilled_gfl import model as _distilled
from .shapes_gflv2 import dataloader, lr_multiplier, model, optimizer, train

model._target_ = _distilled._target_
model.teacher = _distilled.teacher
model.teacher.update(
    config="quick_start/shapes_teacher.py", weights="./output/shapes_teacher/model_final.pth"
)
model.criterion = _distilled.criterion
# Means, which do not depend on the batch. The published form multiplies them by the summed weights
# of a region, for two images 48 and 28 at the end of shapes_gflv2.py: times .25 this is 12 and 7.
model.criterion.ld_loss.update(normalised=True, weight=12.0)
model.criterion.ld_vlr_loss.update(normalised=True, weight=7.0)
model.criterion.kd_loss.normalised = True
train.output_dir = "./output/shapes_distilled"
