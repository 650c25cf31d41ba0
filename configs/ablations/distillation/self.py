"""A teacher like the student, trained before it: quick_start/shapes_gflv2.py."""

from ...quick_start.shapes_distilled import dataloader, lr_multiplier, model, optimizer, train

model.teacher.update(
    config="quick_start/shapes_gflv2.py", weights="./output/shapes_gflv2/model_final.pth"
)
